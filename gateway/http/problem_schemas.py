"""What OpenAPI says of the problem documents that `problems` makes.

Apart from them, because it needs contracts: Ray's proxy has problems to tell and no models.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from gateway.contract import Difference
from gateway.errors import all_errors
from gateway.http.problems import MEDIA_TYPE


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's description of responses that are problem documents."""
    return {
        status: {
            "description": "A problem document.",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem_schemas() -> dict[str, Any]:
    """JSON Schemas of the envelope, shared by all errors, and of what is in it, as components."""
    text = {"type": "string"}
    problem = {
        "description": "Problem details (RFC 9457); `code` tells the errors apart.",
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
        "properties": {
            "type": {**text, "format": "uri", "description": "A stable URI of the code."},
            "title": text,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": text,
            "instance": {**text, "description": "The path of the request."},
            "code": {**text, "enum": sorted({error.code for error in all_errors()})},
            "request_id": text,
            "error": {**text, "description": "`detail` and places, for v2 clients."},
            "error_code": {**text, "description": "MLflow's name of the error."},
            "message": {**text, "description": "The same text, for MLflow's clients."},
            "model": text,
            "version": {"type": "integer"},
            "requested_version": {"type": "integer"},
            "default_version": {"type": "integer"},
            "differences": _list_of("Difference"),
            "errors": _list_of("Violation"),
        },
    }
    violation = {
        "description": "One place of a body that doesn't fit.",
        "type": "object",
        "required": ["pointer", "message"],
        "properties": {
            "pointer": {**text, "description": "RFC 6901 pointer into the body."},
            "message": text,
        },
    }
    return {"Problem": problem, "Violation": violation, "Difference": _difference_schema()}


def _difference_schema() -> dict[str, Any]:
    schema: dict[str, Any] = without_titles(TypeAdapter(Difference).json_schema())
    return schema


def without_titles(schema: Any) -> Any:
    """A schema of pydantic's without the titles that it gives to every member: generators of
    clients name classes by them, and members of the same name would have one class."""
    if isinstance(schema, list):
        return [without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: without_titles(each) for key, each in member.items()}
        if name == "properties"
        else without_titles(member)
        for name, member in schema.items()
        if name != "title" or not isinstance(member, str)
    }


def _list_of(component: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{component}"}}
