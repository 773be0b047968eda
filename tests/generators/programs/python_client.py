"""Calls with openapi-python-client's package `generated`: URL."""

import importlib
import pkgutil
import sys

import generated
from generated.api.models import predict_doubles
from generated.client import Client
from generated.models import DoublesInput, DoublesOutput, DoublesWrapped, Problem

for module in pkgutil.walk_packages(generated.__path__, "generated."):
    importlib.import_module(module.name)

client = Client(base_url=sys.argv[1])
for body in (
    DoublesInput(x=2.0),
    [DoublesInput(x=2.0)],
    DoublesWrapped(inputs=DoublesInput(x=2.0)),
):
    answer = predict_doubles.sync(client=client, body=body)
    assert isinstance(answer, list), answer
    assert isinstance(answer[0], DoublesOutput), answer
    assert answer[0].y == 4.0, answer
problem = predict_doubles.sync(client=client, body=DoublesInput(x="no number"))
assert isinstance(problem, Problem), problem
assert problem.errors[0].pointer == "/x", problem
