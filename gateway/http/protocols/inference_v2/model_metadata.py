"""What the Open Inference Protocol tells of server and models: metadata, readiness, the index."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as distribution_version
from typing import Any

from gateway.availability import Unloadable, why_version_is_silent
from gateway.catalog import Catalog, Resolution, ServedModel
from gateway.errors import GatewayError, ModelUnavailable
from gateway.http.protocols.inference_v2.tensor_specs import (
    NUMBERS,
    TensorSpec,
    input_specs,
    output_specs,
)

PLATFORM = "mlflow_pyfunc"
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")
_RETRY_AFTER_S = 5.0


def server_metadata() -> dict[str, Any]:
    """The answer to `GET /v2`."""
    version = distribution_version("modelmux")
    return {"name": "modelmux", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(catalog: Catalog, resolution: Resolution) -> dict[str, Any]:
    """The answer to `GET /v2/models/{model}`: of what answers, and which versions may be named."""
    model, contract = resolution.model, resolution.contract
    return {
        "name": model.name,
        "versions": list(_answering(catalog, model)),
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in input_specs(contract.accepted)],
        "outputs": [_tensor(spec) for spec in output_specs(contract.promised)],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    said = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    if spec.content_type == NUMBERS:
        return said
    return {**said, "parameters": {"content_type": spec.content_type}}


def _answering(catalog: Catalog, model: ServedModel) -> Iterable[str]:
    for version in model.versions:
        try:
            catalog.resolve(model.name, str(version.number))
        except GatewayError:
            continue
        yield str(version.number)


def require_ready(resolution: Resolution, unloadable: Unloadable) -> None:
    """Raise ModelUnavailable where requests for what was resolved aren't answered now."""
    model, version = resolution.model, resolution.version
    reason = why_version_is_silent(model, version, unloadable)
    if reason is not None:
        raise ModelUnavailable(
            reason, model=model.name, version=version.number, retry_after_s=_RETRY_AFTER_S
        )


def repository_index(
    catalog: Catalog, unloadable: Unloadable, *, only_ready: bool
) -> list[dict[str, str]]:
    """The answer to `POST /v2/repository/index`: every version, and whether it answers now."""
    found = []
    for model in catalog.models.values():
        for version in model.versions:
            reason = _why_silent(catalog, model, str(version.number), unloadable)
            if reason and only_ready:
                continue
            found.append(
                {
                    "name": model.name,
                    "version": str(version.number),
                    "state": "UNAVAILABLE" if reason else "READY",
                    "reason": reason,
                }
            )
    return found


def _why_silent(catalog: Catalog, model: ServedModel, selector: str, unloadable: Unloadable) -> str:
    try:
        require_ready(catalog.resolve(model.name, selector), unloadable)
    except GatewayError as error:
        return error.detail
    return ""
