"""The signature that MLflow infers from an input example, for versions that were logged without.

As `mlflow.models.infer_signature` has it, of the inputs alone: what a model answers isn't known
before it is asked. The example is read as `mlflow.models.Model.load_input_example` reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.catalog import UntypableSignature, contract_of

_logger = logging.getLogger(__name__)


def inferred_signature(info: Mapping[str, Any], text: str) -> str | None:
    """The signature as canonical JSON text, of an example with what the MLmodel file says of it;
    None where MLflow infers none, or one that can't be served."""
    from mlflow.models.signature import infer_signature  # pandas, scipy: slow to import

    try:
        signature = infer_signature(*_example(info, orjson.loads(text))).to_dict()
        made = {**signature, "outputs": None}
        found = orjson.dumps(made, option=orjson.OPT_SORT_KEYS).decode()
        contract_of(found)
    except UntypableSignature:
        return None
    # A boundary: MLflow's inference raises whatever comes up in it, of files that anybody wrote.
    except Exception as error:
        _logger.debug("no signature can be inferred from an input example", exc_info=error)
        return None
    return found


def _example(info: Mapping[str, Any], document: Any) -> tuple[Any, None, Any]:
    """The arguments of `infer_signature`: the input, no output, and the params."""
    from mlflow.utils import proto_json_utils

    params = None
    if info.get("params"):
        document, params = document["inputs"], document["params"]
    match info["type"]:
        case "dataframe":
            table = proto_json_utils.dataframe_from_parsed_json(  # type: ignore[no-untyped-call]
                document, pandas_orient="split"
            )
            return table, None, params
        case "ndarray":
            tensors = proto_json_utils.parse_inputs_data(document)  # type: ignore[no-untyped-call]
            return tensors, None, params
        case "json_object":
            return document, None, params
    raise ValueError(info["type"])
