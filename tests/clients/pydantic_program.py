"""Run in an environment with pydantic-open-inference: HTTP's address as the first argument."""

import sys
from typing import Annotated

from pydantic_open_inference import (
    BadStatusCodeFromServerError,
    DatatypeOverride,
    InputsBaseModel,
    OutputsBaseModel,
    RemoteModel,
)


class Inputs(InputsBaseModel):
    """What the model takes."""

    a: Annotated[list[float], DatatypeOverride("FP64")]
    t: list[str]


class Outputs(OutputsBaseModel):
    """What it gives."""

    a: list[float]
    t: list[str]


def model(name):
    return RemoteModel(
        inputs_model=Inputs,
        outputs_model=Outputs,
        model_name=name,
        server_url=f"http://{sys.argv[1]}",
    )


plain = model("plain")
assert plain.is_ready()
plain.validate()
answer = plain.infer(Inputs(a=[1.5, 2.0], t=["grün", "b"]))
assert (answer.a, answer.t) == ([1.5, 2.0], ["grün", "b"])
assert not model("nope").is_ready()
try:
    plain.infer(Inputs(a=[1.5], t=["a", "b"]))
except BadStatusCodeFromServerError as error:
    assert error.status_code == 422, error
else:
    raise AssertionError
print("all good")
