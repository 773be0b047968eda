"""URIs of registries: what may be shown of them, and what they lead to. Must not import mlflow."""

from __future__ import annotations

from urllib.parse import urlsplit

_DATABASE_SERVERS = frozenset({"postgresql", "mysql", "mssql"})


def without_credentials(uri: str) -> str:
    """The URI as it may be shown and kept: without user and password, also one that has a `/`."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else uri


def is_database_server(uri: str) -> bool:
    """Whether MLflow would connect to a database at `uri`, and try that for minutes."""
    return urlsplit(uri).scheme.partition("+")[0] in _DATABASE_SERVERS


def is_web(uri: str) -> bool:
    """Whether a server is asked at `uri`, by HTTP."""
    return urlsplit(uri).scheme in ("http", "https")
