"""The sync service: one replica that owns the catalog and the applications of models."""
