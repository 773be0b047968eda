"""Calls with openapi-generator's Python package `generated`: URL."""

import importlib
import pkgutil
import sys

import generated
from generated import ApiClient, Configuration, DoublesInput, DoublesRequest, ModelsApi
from generated.exceptions import ApiException

for module in pkgutil.walk_packages(generated.__path__, "generated."):
    importlib.import_module(module.name)

with ApiClient(Configuration(host=sys.argv[1])) as client:
    models = ModelsApi(client)
    row = DoublesInput(x=2.0)
    for body in (row, [row]):
        answer = models.predict_doubles(DoublesRequest(body))
        assert [row.y for row in answer] == [4.0], answer
    try:
        models.predict_doubles(DoublesRequest(row), x_request_timeout="-1")
    except (ApiException, ValueError):
        pass
    else:
        raise AssertionError("a timeout below zero was taken")
