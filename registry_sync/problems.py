"""What keeps a registry from answering, as sentences that say what to do about it.

Owns the kinds that are known, which are told by the classes of what was raised and never by texts.
Of all others MLflow's first line is shown, without what could be a secret.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from requests.exceptions import RetryError, Timeout

from registry_sync.masking import credentials_in, shown
from registry_sync.records import RegistryUnreachable, RegistryUnusable
from registry_sync.uris import is_database_server, without_credentials

_Error = TypeVar("_Error", bound=BaseException)

_SERVER_SAYS = {
    "UNAUTHENTICATED": "doesn't know who asks: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "CUSTOMER_UNAUTHORIZED": "doesn't know who asks: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "PERMISSION_DENIED": "lets the gateway's user see no models: it needs the permission READ",
    "ENDPOINT_NOT_FOUND": "has no registry at this address: it should be where MLflow's own page "
    "is, without what comes behind",
}

_PACKAGES = {
    "sqlalchemy": "mlflow",
    "psycopg": "psycopg",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
"""What is installed where a module is called otherwise."""


def registry_problem(error: BaseException, uri: str) -> RegistryUnreachable:
    """Why the registry at `uri` can't be read, of what was raised when it was tried; a
    RegistryUnusable where waiting changes nothing."""
    shown_uri = without_credentials(uri)
    raised = tuple(_chain(error))
    lasting = _lasting_problem(raised, uri, shown_uri)
    if lasting is not None:
        return RegistryUnusable(lasting)
    passing = _passing_problem(raised, shown_uri)
    return RegistryUnreachable(passing or _in_its_words(error, uri, shown_uri))


def require_driver(uri: str) -> None:
    """Raises ModuleNotFoundError where what speaks to that database isn't installed."""
    from sqlalchemy.engine import make_url  # not there with mlflow-skinny

    make_url(uri).get_dialect().import_dbapi()


def _lasting_problem(raised: tuple[BaseException, ...], uri: str, shown_uri: str) -> str | None:
    """What is amiss with this process or its settings."""
    missing = _first(raised, ModuleNotFoundError)
    if missing is not None:
        module = (missing.name or "").partition(".")[0]
        package = _PACKAGES.get(module, module)
        return f"To read {shown_uri} the package {package} is needed here: pip install {package}."
    scheme = urlsplit(uri).scheme
    if _first(raised, UnsupportedModelRegistryStoreURIException) is not None:
        if scheme.startswith("sqlite") or is_database_server(uri):
            return (
                f"To read the database {shown_uri} all of MLflow is needed here, and this is "
                "mlflow-skinny: pip install mlflow, or name an MLflow server."
            )
        return (
            f"{shown_uri} is no kind of registry that the MLflow which is installed here can read."
        )
    is_files = scheme in ("", "file") and not uri.startswith("databricks")
    if is_files and _code(raised) == "INVALID_PARAMETER_VALUE":
        return (
            f"{shown_uri} is a folder, and MLflow reads no registry in files any more: move it to "
            "a database by `mlflow migrate-filestore`, or set MLFLOW_ALLOW_FILE_STORE=true."
        )
    return None


def _passing_problem(raised: tuple[BaseException, ...], shown_uri: str) -> str | None:
    """What is amiss with the way there or the server."""
    if _first(raised, ConnectionRefusedError) is not None:
        return (
            f"Nobody listens at {shown_uri}: is the MLflow server running, and is it that address?"
        )
    if _first(raised, socket.gaierror) is not None:
        return f"The name of the host in {shown_uri} is known to nobody here."
    if _first(raised, ssl.SSLError) is not None:
        return (
            f"No TLS connection to {shown_uri} can be made: is it https, and is its certificate "
            "known here (MLFLOW_TRACKING_SERVER_CERT_PATH)?"
        )
    if _first(raised, Timeout, TimeoutError) is not None:
        return f"{shown_uri} doesn't answer in time (MLFLOW_HTTP_REQUEST_TIMEOUT)."
    if _first(raised, RetryError) is not None:
        return f"The MLflow server at {shown_uri} answers with errors of its own; its log says why."
    said = _SERVER_SAYS.get(_code(raised))
    return None if said is None else f"The MLflow server at {shown_uri} {said}."


def _in_its_words(error: BaseException, uri: str, shown_uri: str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f": {shown(lines[0], credentials_in([uri]))}" if lines else ""
    return f"The registry at {shown_uri} gives no usable answer ({type(error).__name__}){said}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What was raised, and what that came of: MLflow doesn't always say `from`."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _first(raised: tuple[BaseException, ...], *kinds: type[_Error]) -> _Error | None:
    return next((each for each in raised if isinstance(each, kinds)), None)


def _code(raised: tuple[BaseException, ...]) -> str:
    mlflows = _first(raised, MlflowException)
    return "" if mlflows is None else str(mlflows.error_code)
