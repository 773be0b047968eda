"""What callers of a model may send and what they will get, made from its MLflow signature.

Pure: reads a signature, parses request bodies, renders outputs, says both as JSON Schema, and tells
whether one version may answer for another. Imports no Ray, no FastAPI, no pandas and no MLflow
client; of MLflow only `mlflow.types`, as values.

The modules, in the order in which a request meets them: `signature` (MLflow -> `types`),
`plain_table` (the short way of the commonest bodies), `body` (forms of a body) with `validation`,
`columns` (what comes as columns),
`frames` with `encoding` and `tensors`; on the way back `outputs` (whose rows are whose) and
`rendering` with `coercion`. `text_formats` is how JSON strings write dates and bytes, `json_schema`
publishes all of it, `differences` and `extension` compare two versions, `contract` is the front,
`forms` how a request is read and an answer written.
"""

from gateway.contract.body import malformed
from gateway.contract.columns import Places, Table
from gateway.contract.contract import Contract, Request, request_of
from gateway.contract.differences import Difference, differences
from gateway.contract.forms import (
    TYPED,
    Form,
    Joint,
    Outputs,
    Read,
    TogetherForm,
    Write,
    Written,
    joined_columns,
    joined_rows,
)
from gateway.contract.frames import Frame
from gateway.contract.json_together import values_of
from gateway.contract.outputs import Output
from gateway.contract.rendering import AnswerColumn
from gateway.contract.signature import UntypableSignature

__all__ = [
    "TYPED",
    "AnswerColumn",
    "Contract",
    "Difference",
    "Form",
    "Frame",
    "Joint",
    "Output",
    "Outputs",
    "Places",
    "Read",
    "Request",
    "Table",
    "TogetherForm",
    "UntypableSignature",
    "Write",
    "Written",
    "differences",
    "joined_columns",
    "joined_rows",
    "malformed",
    "request_of",
    "values_of",
]
