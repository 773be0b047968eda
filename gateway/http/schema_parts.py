"""A schema taken apart into components: each object inside of it becomes one of its own.

Generators of clients make a class of each object, and call those that have no name by where they
are, so that two in members `a-b` and `a_b` would be one class. Here each has a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.http.component_names import member_name, told_apart
from gateway.http.shared_components import reference

JsonSchema = dict[str, Any]


Path = tuple[str, ...]


def taken_apart(component: str, part: str, schema: JsonSchema) -> dict[str, JsonSchema]:
    """The components that a model's part is made of, by their keys: `component.part`, and one for
    each object inside."""
    names = _names(part, schema)
    made: dict[str, JsonSchema] = {}

    def put(inner: JsonSchema, path: Path) -> JsonSchema:
        whole = _with_each(inner, path, put)
        if not path or not _is_object(inner):
            return whole
        key = f"{component}.{names[path]}"
        made[key] = {**whole, "type": "object"}
        told = reference("schemas", key)
        return {"anyOf": [told, {"type": "null"}]} if inner["type"] != "object" else told

    whole = put(schema, ())
    return {f"{component}.{part}": whole, **made}


def _names(part: str, schema: JsonSchema) -> dict[Path, str]:
    """By the members that lead there; those nearer to the root have the first choice."""
    names: dict[Path, str] = {}
    taken = {part.casefold()}
    for path in sorted(_objects_in(schema), key=lambda path: (len(path), path)):
        name = member_name(part, path)
        names[path] = told_apart(name, path) if name.casefold() in taken else name
        taken.add(names[path].casefold())
    return names


def _is_object(schema: JsonSchema) -> bool:
    return "properties" in schema


def _objects_in(schema: JsonSchema) -> list[Path]:
    found: list[Path] = []

    def note(inner: JsonSchema, path: Path) -> JsonSchema:
        if path and _is_object(inner):
            found.append(path)
        return _with_each(inner, path, note)

    note(schema, ())
    return found


def _with_each(
    schema: JsonSchema, at: Path, replace: Callable[[JsonSchema, Path], JsonSchema]
) -> JsonSchema:
    """The schema with what `replace` makes of each schema right inside, told the members that
    lead there."""
    new = dict(schema)
    if "properties" in schema:
        new["properties"] = {
            name: replace(member, (*at, name)) for name, member in schema["properties"].items()
        }
    if "prefixItems" in schema:
        new["prefixItems"] = [
            replace(member, (*at, f"item {place}"))
            for place, member in enumerate(schema["prefixItems"], start=1)
        ]
    for keyword, word in (("items", "item"), ("additionalProperties", "value")):
        if isinstance(schema.get(keyword), dict):
            new[keyword] = replace(schema[keyword], (*at, word))
    return new
