"""What keeps a registry from answering, as sentences that say what to do about it.

Owns the kinds that are known, which are told by the classes of what was raised and never by texts.
Of all others MLflow's first line is shown, without what could be a secret.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from google.protobuf.json_format import ParseError
from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from requests import Request
from requests.exceptions import (
    ChunkedEncodingError,
    RequestException,
    RetryError,
    Timeout,
    TooManyRedirects,
)
from requests.exceptions import (
    ConnectionError as BrokenConnection,
)

from registry_sync.masking import credentials_in, shown
from registry_sync.records import RegistryUnreachable, RegistryUnusable
from registry_sync.uris import is_database_server, is_web, without_credentials

_Error = TypeVar("_Error", bound=BaseException)

_NO_REGISTRY = (
    "has no registry at this address: it should be where MLflow's own page is, without what comes "
    "behind"
)
_SERVER_SAYS = {
    "UNAUTHENTICATED": "doesn't know who asks: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "CUSTOMER_UNAUTHORIZED": "doesn't know who asks: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "PERMISSION_DENIED": "lets the gateway's user see no models: it needs the permission READ",
    "ENDPOINT_NOT_FOUND": _NO_REGISTRY,
    # Of a search: another server that writes errors as MLflow does, a gateway's.
    "RESOURCE_DOES_NOT_EXIST": _NO_REGISTRY,
}

_ANSWERS_OTHERWISE = (
    "What answers at {} isn't MLflow's registry: is it the address of the MLflow server, or of a "
    "login page in front of it"
)

_PACKAGES = {
    "sqlalchemy": "mlflow",
    "psycopg": "'psycopg[binary]'",
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


def require_there(uri: str) -> None:
    """Raises RegistryUnusable where the registry is a file or a folder that isn't there: MLflow
    would make an empty one, and there would be no models without a word."""
    path = _path_of(uri)
    if path is not None and not path.exists():
        raise RegistryUnusable(
            f"There is no registry at {without_credentials(uri)}: {path.absolute()} doesn't exist."
        )


def _path_of(uri: str) -> Path | None:
    """The file of a SQLite database, or the folder of a registry of files; None where it is
    neither, is in memory, or is a folder that MLflow reads no more, wherever it is."""
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] == "sqlite":
        path = parts.path[1:]
        return None if path in ("", ":memory:") or path.startswith("file:") else Path(path)
    if not MLFLOW_ALLOW_FILE_STORE.get():  # type: ignore[no-untyped-call]
        return None
    if parts.scheme == "file":
        return Path(parts.path)
    return Path(uri) if uri.startswith(("/", ".")) else None


def no_mlflow(uri: str) -> RegistryUnreachable:
    """What answers at `uri` as if nothing were registered is no MLflow server."""
    return RegistryUnreachable(_ANSWERS_OTHERWISE.format(without_credentials(uri)) + "?")


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
    elsewhere = _redirected_to(raised, shown_uri)
    if elsewhere is not None:
        return (
            f"{shown_uri} leads to {elsewhere}, as login pages do, and nothing is to be had there: "
            "set what lets the gateway in (MLFLOW_TRACKING_TOKEN), or name the server behind it."
        )
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
    if _first(raised, BrokenConnection, ChunkedEncodingError) is not None:
        return f"{shown_uri} breaks the connection off: is that an HTTP server, and its port?"
    said = _SERVER_SAYS.get(_code(raised))
    return None if said is None else f"The MLflow server at {shown_uri} {said}."


def _redirected_to(raised: tuple[BaseException, ...], shown_uri: str) -> str | None:
    """Where a redirect led that came to nothing; None where there was none."""
    failed = _first(raised, RequestException)
    if failed is None or not is_web(shown_uri):
        return None
    asked = urlsplit(getattr(failed.request, "url", None) or "").hostname
    # As it is written when it is asked: a name with other letters than ASCII's has another form.
    own = urlsplit(Request("GET", shown_uri).prepare().url or "").hostname
    if isinstance(failed, TooManyRedirects) and asked == own:
        return "itself without end"
    return None if asked == own else asked


def _in_its_words(error: BaseException, uri: str, shown_uri: str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f": {shown(lines[0], credentials_in([uri]))}" if lines else ""
    said = said if said.endswith((".", "…")) else f"{said}."
    if _answers_otherwise(error, uri):
        return f"{_ANSWERS_OTHERWISE.format(shown_uri)}? MLflow's client says{said}"
    return f"The registry at {shown_uri} gives no usable answer ({type(error).__name__}){said}"


def _answers_otherwise(error: BaseException, uri: str) -> bool:
    """Whether something answered that MLflow's client can't read: no JSON, or JSON of another
    kind. What an MLflow server refuses is a RestException with a code."""
    if not is_web(uri):
        return False
    if isinstance(error, RestException):
        return not error.json.get("error_code")
    is_clients = isinstance(error, MlflowException) and error.error_code == "INTERNAL_ERROR"
    return is_clients or isinstance(error, ParseError)


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
