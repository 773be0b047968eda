"""The MLflow deployments plugin: `mlflow.deployments.get_deploy_client("modelmux:http://HOST:8000")`.

A client of a running gateway and nothing of its own: imports MLflow's client classes and httpx, and
nothing else of ours; PyArrow, where it is installed. The key is that of `modelmux predict`, from
`MODELMUX_KEY`.
"""

from __future__ import annotations

import os
from decimal import Decimal
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pandas as pd
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, ErrorCode
from mlflow.utils.proto_json_utils import dump_input_data

_SCHEME = "modelmux:"
_KEY = "MODELMUX_KEY"
_DEFAULT_URL = "http://127.0.0.1:8000"
_ARROW = "application/vnd.apache.arrow.stream"
_COLUMNS = "application/vnd.modelmux-columns+json"
# The gateway has a deadline of its own, and answers when it has passed.
_TIMEOUT = httpx.Timeout(3700.0, connect=10.0)
_SCORED = {
    "dataframe_split", "dataframe_records", "instances", "inputs", "messages", "prompt", "input"
}  # fmt: skip
_BY_REGISTERING = (
    "modelmux serves what is in the MLflow registry: register a version or delete it there."
)


def target_help() -> str:
    """What `mlflow deployments help -t modelmux` says."""
    return (
        "A target is modelmux:URL, such as modelmux:http://127.0.0.1:8000, where a gateway "
        f"listens. Keys: {_KEY}. A name is a registered model's, NAME/VERSION or NAME@ALIAS. "
        + _BY_REGISTERING
    )


def run_local(
    target: str, name: str, model_uri: str, flavor: str | None = None, config: Any = None
) -> None:
    """Refused: `modelmux up` is what runs a gateway."""
    raise _refused()


class ModelmuxDeploymentClient(BaseDeploymentClient):
    """Each registered model is a deployment and an endpoint of its name."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)  # type: ignore[no-untyped-call]
        url = target_uri.removeprefix(_SCHEME).strip("/") if ":" in target_uri else ""
        url = url or _DEFAULT_URL
        key = os.environ.get(_KEY)
        self._client = httpx.Client(
            base_url=url if "://" in url else f"http://{url}",
            headers={} if not key else {"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
        )

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> Any:
        """A DataFrame's predictions as a DataFrame with its index, the only column of answers
        without names being "prediction"; of whatever else MLflow's scoring protocol takes
        (an array, a list, its JSON as a dict) a `PredictionsResponse`.

        Raises MlflowException with what the gateway said.
        """
        name = deployment_name if endpoint is None else endpoint
        if name is None:
            raise _wrong("Say which model to ask: its name as the deployment or the endpoint.")
        path, headers = _asked(name)
        if isinstance(inputs, pd.DataFrame):
            return self._predict_table(f"{path}/predict", headers, inputs)
        content = _as_scored(inputs)
        response = self._post(f"{path}/invocations", headers, content, "application/json")
        answer = response.json()
        return PredictionsResponse(answer if isinstance(answer, dict) else {"predictions": answer})

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """What the gateway serves, as it lists it."""
        models: list[dict[str, Any]] = self._get("/models")["models"]
        return models

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """What the gateway tells of a model: versions, compatibility, schemas."""
        return self._get(_asked(name)[0])

    def list_endpoints(self) -> list[dict[str, Any]]:
        """The same as `list_deployments`."""
        return self.list_deployments()

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """The same as `get_deployment`."""
        return self.get_deployment(endpoint)

    def create_deployment(self, name: str, model_uri: str, *args: Any, **kwargs: Any) -> Any:
        """Refused: registering does it."""
        raise _refused()

    def update_deployment(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Refused: registering a version or moving an alias does it."""
        raise _refused()

    def delete_deployment(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Refused: deleting it in the registry does it."""
        raise _refused()

    def _predict_table(
        self, path: str, headers: dict[str, str], inputs: pd.DataFrame
    ) -> pd.DataFrame:
        if len(set(map(str, inputs.columns))) < len(inputs.columns):
            raise _wrong("Two columns of the DataFrame have the same name.")
        content = _arrow_stream(inputs)
        if content is not None:
            response = self._post(path, {**headers, "Accept": _ARROW}, content, _ARROW)
            answer = _read_arrow(response.content)
        else:
            response = self._post(
                path, {**headers, "Accept": _COLUMNS}, _by_column(inputs), _COLUMNS
            )
            answer = pd.DataFrame(response.json()["columns"])
        return answer.set_axis(inputs.index) if len(answer) == len(inputs) else answer

    def _post(
        self, path: str, headers: dict[str, str], content: bytes | str, media_type: str
    ) -> httpx.Response:
        # Neither side's time is spent on what a DataFrame's numbers hardly become smaller by.
        sent = {"Content-Type": media_type, "Accept-Encoding": "identity", **headers}
        return self._checked("POST", path, content=content, headers=sent)

    def _get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._checked("GET", path).json()
        return found

    def _checked(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            message = f"No answer from {self._client.base_url}: {type(error).__name__}."
            raise MlflowException(message) from error
        if response.is_success:
            return response
        raise _told(response)


def _asked(name: str) -> tuple[str, dict[str, str]]:
    """The path of a model, and the header of the version that the name says."""
    # No name has a slash (MLflow refuses it), but some have an @: NAME/latest asks for these.
    model, found, selector = name.rpartition("/")
    if not found:
        model, found, selector = name.rpartition("@")
    if not (found and model and selector):
        model, selector = name, ""
    if not (selector.isascii() and selector.isprintable()):
        raise _wrong("A version is a number, an alias or latest, in ASCII.")
    headers = {"X-Model-Version": selector} if selector else {}
    return f"/models/{quote(model, safe='')}", headers


def _as_scored(inputs: Any) -> bytes | str:
    """MLflow's JSON as it is; another dict is one of inputs by their names. Raises
    MlflowException."""
    if isinstance(inputs, dict):
        return _json(inputs if _SCORED & inputs.keys() else {"inputs": inputs})
    try:
        scored: str = dump_input_data(inputs)
    except (TypeError, ValueError) as error:
        raise _wrong(f"The inputs have no form in JSON: {error}.") from error
    return scored


def _json(body: dict[str, Any]) -> bytes:
    """Raises MlflowException for what JSON has no form for."""
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)
    except TypeError as error:
        raise _wrong(f"The inputs have no form in JSON: {error}.") from error


def _told(response: httpx.Response) -> MlflowException:
    """The gateway's problem document; of something else in between its status."""
    try:
        problem = response.json()
        message, code = problem["message"], problem["error_code"]
    except (ValueError, KeyError, TypeError):
        return MlflowException(f"The gateway's server answered {response.status_code}.")
    known = dict(ErrorCode.items())
    return MlflowException(message, known.get(code, INTERNAL_ERROR))


def _refused() -> MlflowException:
    return _wrong(_BY_REGISTERING)


def _wrong(message: str) -> MlflowException:
    return MlflowException(message, INVALID_PARAMETER_VALUE)


def _arrow_stream(frame: pd.DataFrame) -> bytes | None:
    """The columns as they are, NaN being a number; None where they have no form in Arrow, or it
    isn't installed."""
    if find_spec("pyarrow") is None:
        return None
    import pyarrow as pa

    try:
        columns = [_arrow_array(frame.iloc[:, i]) for i in range(frame.shape[1])]
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    if any(isinstance(column.type, pa.BaseExtensionType) for column in columns):
        return None  # pandas' own, such as a period's: a number to who doesn't know it
    table = pa.table(columns, names=[str(name) for name in frame.columns])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _arrow_array(column: pd.Series[Any]) -> Any:
    import pyarrow as pa

    kind = getattr(column.dtype, "kind", "O")
    if kind in "biuf" and not isinstance(column.dtype, pd.api.extensions.ExtensionDtype):
        return pa.array(column.to_numpy(), from_pandas=False)
    made = pa.array(column, from_pandas=True)
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _read_arrow(content: bytes) -> pd.DataFrame:
    import pyarrow as pa

    with pa.ipc.open_stream(content) as reader:
        answer: pd.DataFrame = reader.read_all().to_pandas(maps_as_pydicts="strict")
    return answer


def _by_column(frame: pd.DataFrame) -> bytes:
    columns = {
        str(name): [None if _is_null(cell) else cell for cell in frame.iloc[:, i].tolist()]
        for i, name in enumerate(frame.columns)
    }
    return _json({"columns": columns})


def _is_null(cell: Any) -> bool:
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def _plain(value: Any) -> str | float:
    """Bytes, moments and decimals as the gateway's JSON has them."""
    if isinstance(value, bytes):
        from base64 import b64encode

        return b64encode(value).decode("ascii")
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
