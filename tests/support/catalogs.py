"""Signatures, versions and catalogs as values, for tests that need no registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.catalog import Catalog, ModelVersion, ServedModel
from registry_sync.records import RegisteredModel

Column = tuple[str, str] | tuple[str, str, bool]


def signature(
    *inputs: Column,
    outputs: Sequence[Column] = (("y", "double"),),
    params: Sequence[Mapping[str, Any]] = (),
) -> str:
    """An MLmodel signature as JSON text; a column is (name, type) or (name, type, required)."""
    document = {
        "inputs": orjson.dumps([_column(c) for c in inputs]).decode(),
        "outputs": orjson.dumps([_column(c) for c in outputs]).decode() if outputs else None,
        "params": orjson.dumps(list(params)).decode() if params else None,
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def _column(column: Column) -> dict[str, Any]:
    name, kind, *required = column
    return {"name": name, "type": kind, "required": required[0] if required else True}


PLAIN = signature(("x", "double"))
LOOSER = signature(("x", "double"), ("z", "string", False))
BREAKING = signature(("other", "double"))


def version(number: int, text: str | None = PLAIN, **fields: Any) -> ModelVersion:
    """A READY version with that signature."""
    fields.setdefault("fingerprint", f"f{number}")
    return ModelVersion(number=number, signature=text, **fields)


def record(
    *versions: ModelVersion,
    name: str = "m",
    aliases: Mapping[str, int] | None = None,
    tags: Mapping[str, str] | None = None,
) -> RegisteredModel:
    """A registered model as a reading of the registry has it."""
    return RegisteredModel(name=name, versions=versions, aliases=aliases or {}, tags=tags or {})


def served(*versions: ModelVersion, default: int | None = None, **fields: Any) -> ServedModel:
    """A served model whose default is the last of its versions, unless told otherwise."""
    number = default if default is not None else versions[-1].number
    chosen = next(v for v in versions if v.number == number)
    fields.setdefault("contract", chosen.signature)
    return ServedModel(
        name=fields.pop("name", "m"), versions=versions, default_version=number, **fields
    )


def catalog(*models: ServedModel, generation: int = 1) -> Catalog:
    """A catalog of these models."""
    return Catalog(generation=generation, models={model.name: model for model in models})
