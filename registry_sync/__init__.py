"""From an MLflow registry to a catalog: reading, choosing defaults, holding what would break.

Knows no Ray. Only `registry_sync.source` talks to the registry.
"""
