"""Reads and writes with datamodel-code-generator's package `generated`: URL."""

import importlib
import json
import pkgutil
import sys
import urllib.request

import generated
from generated import doubles

for module in pkgutil.walk_packages(generated.__path__, "generated."):
    importlib.import_module(module.name)

for body in ({"x": 2}, [{"x": 2}], {"inputs": {"x": 2}, "params": {}}):
    content = doubles.Request.model_validate(body).model_dump_json(exclude_unset=True).encode()
    request = urllib.request.Request(
        f"{sys.argv[1]}/models/doubles/predict", content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        assert doubles.Output.model_validate(json.load(response)[0]).y == 4.0
