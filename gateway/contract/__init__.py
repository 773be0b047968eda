"""What callers of a model may send and what they will get, made from its MLflow signature.

Pure: reads a signature, parses request bodies, renders outputs, says both as JSON Schema, and tells
whether one version may answer for another. Imports no Ray, no FastAPI, no pandas and no MLflow
client; of MLflow only `mlflow.types`, as values.

The modules, in the order in which a request meets them: `signature` (MLflow -> `types`), `body`
(forms of a body) with `validation`, `frames` with `encoding` and `tensors`, and past these the
short way of `plain_table`; on the way back `outputs`, then `rendering` with `coercion`.
`text_formats` is how JSON strings write dates and bytes, `json_schema` publishes all of it,
`differences` and `extension` compare two versions, `contract` is the front.
"""

from gateway.contract.contract import Contract, Request
from gateway.contract.differences import Difference, differences
from gateway.contract.frames import Frame
from gateway.contract.outputs import Output
from gateway.contract.signature import UntypableSignature

__all__ = [
    "Contract",
    "Difference",
    "Frame",
    "Output",
    "Request",
    "UntypableSignature",
    "differences",
]
