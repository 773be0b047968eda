"""The environment variables that MLflow and its artifact stores read.

Owns our defaults for them and which of them travel to processes on another machine. What a user
has set wins. Must not import ray or mlflow.
"""

from __future__ import annotations

import os
import re

# A registry that is away must be noticed in seconds: MLflow's own defaults keep a caller waiting
# for minutes (7 retries with back-off, 120 s each).
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

# Credentials and certificates of MLflow, of the stores that it knows, and the way out.
_PASSED_ON = re.compile(
    r"MLFLOW_|OTEL_|AWS_|AZURE_|GOOGLE_|DATABRICKS_|REQUESTS_CA_BUNDLE$|SSL_CERT_|(HTTPS?|NO)_PROXY$",
    re.IGNORECASE,
)


def set_registry_defaults() -> None:
    """Make MLflow's client give up on a registry within seconds, in this process and its children.

    To be called before a client is made.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def tracking_server() -> str | None:
    """The server that MLflow's clients ask where nobody names one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def registry_variables() -> dict[str, str]:
    """What must reach processes that don't inherit this process's environment."""
    return {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
