"""Entry script of a process of this room: `python …/start.py template …` or `… start.py job`.

Run by its path, since the interpreter may have nothing of ours; so it makes the room a package by
itself, under a name that no model's package has. It leaves the search path as Python alone has it.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "_modelmux_model_process"
"""What the room is called in a process of its own."""

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def main() -> None:
    """Be the process that the first argument names."""
    if sys.path and os.path.abspath(sys.path[0]) == _FOLDER:
        del sys.path[0]  # put there by Python, since the program lies in it
    init = os.path.join(_FOLDER, "__init__.py")
    spec = importlib.util.spec_from_file_location(NAME, init, submodule_search_locations=[_FOLDER])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    role, *arguments = sys.argv[1:]
    sys.argv[1:] = []  # the model's code may look
    importlib.import_module("." + role, NAME).main(arguments)


if __name__ == "__main__":
    main()
