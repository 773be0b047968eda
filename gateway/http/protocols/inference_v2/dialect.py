"""`POST /v2/models/{model}[/versions/{version}]/infer` as a dialect of predictions.

Specification: kserve/open-inference-protocol, inference_rest.md; binary tensors are Triton's
extension (extension_binary_data.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.responses import Response
from starlette.types import Scope

from gateway.catalog import Resolution
from gateway.contract import (
    Contract,
    Form,
    Joint,
    Output,
    Outputs,
    Request,
    TogetherForm,
    Written,
)
from gateway.errors import (
    GatewayError,
    InvalidHeader,
    InvalidModelOutput,
    UnsupportedMediaType,
)
from gateway.http.predict.dialect import Dialect
from gateway.http.predict.negotiation import JSON, media_type_of
from gateway.http.predict.version_header import RawHeaders
from gateway.http.problems import problem_of
from gateway.http.protocols.inference_v2.infer_answer import AnswerTensors, written_answer
from gateway.http.protocols.inference_v2.infer_request import read, read_together

MODEL_PATH = "/v2/models/{name}"
VERSION_PATH = "/v2/models/{name}/versions/{selector}"
INFER_PATHS = (f"{MODEL_PATH}/infer", f"{VERSION_PATH}/infer")

_JSON_LENGTH = b"inference-header-content-length"
# Triton's client says nothing.
_TAKEN = frozenset({b"", JSON, b"application/octet-stream"})
_SAID_TAKEN = "application/json, application/octet-stream"


class InferenceV2(Dialect):
    """Tensors in and out; errors have the member `error` (`problems`), and are `application/json`,
    as what else there is: KServe's client reads no other type."""

    protocol = "inference_v2"
    deciding = frozenset({_JSON_LENGTH})

    def form(self, headers: RawHeaders, resolution: Resolution) -> Form:
        """See `Dialect.form`; raises InvalidHeader too."""
        declared = next((value for name, value in headers if name == b"content-type"), b"")
        if declared != JSON and media_type_of(declared) not in _TAKEN:
            raise UnsupportedMediaType(
                "Send the request as application/json, or as application/octet-stream with binary "
                "tensors behind the JSON.",
                accept=_SAID_TAKEN,
            )
        return Form(
            read=partial(read, json_length=_json_length(headers)),
            write=partial(_write, resolution=resolution),
            together=TogetherForm(
                read=read_together, write=partial(_write_together, resolution=resolution)
            ),
        )

    def problem(self, scope: Scope, error: GatewayError) -> Response:
        """See `Dialect.problem`."""
        return as_json(problem_of(scope, error))


def as_json(problem: Response) -> Response:
    """A problem document by the type that clients of the protocol look for."""
    problem.headers["content-type"] = "application/json"
    return problem


def _json_length(headers: RawHeaders) -> int | None:
    given = [value for name, value in headers if name == _JSON_LENGTH]
    if not given:
        return None
    if len(given) > 1 or not given[0].isdigit() or len(given[0]) > len(str(2**63)):
        raise InvalidHeader("Inference-Header-Content-Length is one number of bytes.")
    return int(given[0])


def _write(
    contract: Contract, request: Request, outputs: Outputs, resolution: Resolution
) -> Written:
    tensors = contract.derived(AnswerTensors).of(request, outputs)
    return written_answer(
        tensors,
        request.echo,
        model=resolution.model.name,
        version=resolution.version.number,
    )


def _write_together(
    contract: Contract, joint: Joint, output: Output, resolution: Resolution
) -> Sequence[bytes] | None:
    try:
        return contract.derived(AnswerTensors).written_each(
            joint, output, model=resolution.model.name, version=resolution.version.number
        )
    except InvalidModelOutput:
        return None
