"""MLflow's scoring protocol below each model (`mlflow models serve`, MLflow 3.17).

`POST …/invocations` takes JSON in MLflow's forms, CSV and Parquet, and answers with
`{"predictions": …}`. Where MLflow answers 400 this does: for what doesn't fit the signature, and
where the model's own code fails.
"""

from __future__ import annotations

from importlib.metadata import version as distribution_version

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from gateway.catalog import Resolution
from gateway.contract import Form, TogetherForm
from gateway.errors import GatewayError, InvalidInput, ModelFailed, UnsupportedMediaType
from gateway.forms import mlflow_answers, mlflow_json
from gateway.http.access_control import require_sight
from gateway.http.predict.dialect import Dialect
from gateway.http.predict.negotiation import JSON, media_type_of, table_reader
from gateway.http.predict.version_header import RawHeaders, selector_of
from gateway.http.problems import problem_of
from gateway.prediction import PredictionService

PATHS = ("/models/{name}/invocations", "/models/{name}/versions/{selector}/invocations")

_JSON_FORM = Form(
    read=mlflow_json.read,
    write=mlflow_answers.write,
    together=TogetherForm(read=mlflow_json.read_together, write=mlflow_answers.write_together),
)
_BAD_REQUEST = 400
_TAKEN = "application/json, text/csv, application/vnd.apache.parquet"
_BAD_REQUESTS = (InvalidInput, ModelFailed)


class MlflowScoring(Dialect):
    """What `mlflow.pyfunc.scoring_server` takes and answers."""

    protocol = "mlflow"

    def form(self, headers: RawHeaders, resolution: Resolution) -> Form:
        """JSON, CSV or Parquet in, JSON out."""
        declared = next((value for name, value in headers if name == b"content-type"), b"")
        media_type = media_type_of(declared)
        if media_type == JSON:
            return _JSON_FORM
        read = table_reader(media_type, as_mlflow=True)
        if read is None:
            raise UnsupportedMediaType(
                "Send the body as application/json, text/csv or application/vnd.apache.parquet.",
                accept=_TAKEN,
            )
        return Form(read=read, write=mlflow_answers.write)

    def problem(self, scope: Scope, error: GatewayError) -> Response:
        """A problem document, which has MLflow's members too; 400 where MLflow has it."""
        status = _BAD_REQUEST if isinstance(error, _BAD_REQUESTS) else None
        return problem_of(scope, error, status=status)


def mlflow_router(service: PredictionService) -> APIRouter:
    """What MLflow's clients ask of a server beside predictions, of each model and version."""
    router = APIRouter(include_in_schema=False)

    async def ping(request: Request) -> Response:
        """Whether the model can be asked: what resolves is loaded when it is asked."""
        _resolve(service, request)
        return Response("\n", media_type="application/json")

    async def version(request: Request) -> Response:
        """MLflow's version, as a text."""
        _resolve(service, request)
        return Response(distribution_version("mlflow-skinny"), media_type="application/json")

    for prefix in ("/models/{name}", "/models/{name}/versions/{selector}"):
        for path, answer in (("/ping", ping), ("/health", ping), ("/version", version)):
            router.add_api_route(prefix + path, answer, methods=["GET", "HEAD"])
    return router


def _resolve(service: PredictionService, request: Request) -> None:
    """Raises Forbidden, and what `PredictionService.resolve` raises."""
    path = request.path_params
    require_sight(request, path["name"])
    service.resolve(path["name"], path.get("selector") or selector_of(request.scope["headers"]))
