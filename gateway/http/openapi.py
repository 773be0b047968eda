"""One OpenAPI 3.1 document for the whole catalog, or for a single model.

The gateway's own routes come from FastAPI; each model adds a path of its own with typed schemas
(OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0, whose schemas are JSON Schema 2020-12).
A model that can't be served by default has no path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from gateway.catalog import Catalog, ServedModel
from gateway.errors import GatewayError, all_errors
from gateway.http.problems import MEDIA_TYPE, problem_document, problem_schema
from gateway.http.version_selection import RAY_HEADER, VERSION_HEADER
from gateway.http.views import predict_path

OPENAPI_VERSION = "3.1.0"

# Statuses that a predict route can answer with (design: one table for all models).
_PREDICT_ERRORS = (400, 404, 409, 413, 415, 422, 429, 500, 503, 504)

_NOT_IN_A_COMPONENT_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered document and its strong entity tag (RFC 9110, section 8.8.3), with quotes."""

    content: bytes
    etag: str


class DocumentLibrary:
    """Renders documents on demand and keeps those of the newest catalog."""

    def __init__(self, base: dict[str, Any]) -> None:
        self._base = base
        self._generation = -1
        self._documents: dict[str | None, Document] = {}

    def document(self, catalog: Catalog, model: str | None = None) -> Document:
        """The document of all models, or of one; raises ModelNotFound."""
        if catalog.generation != self._generation:
            self._generation = catalog.generation
            self._documents = {}
        if model not in self._documents:
            self._documents[model] = self._render(catalog, model)
        return self._documents[model]

    def _render(self, catalog: Catalog, model: str | None) -> Document:
        if model is None:
            models = sorted(catalog.models.values(), key=lambda m: m.name)
            content = orjson.dumps(catalog_document(self._base, models))
        else:
            bare = {**self._base, "paths": {}, "components": {}}
            content = orjson.dumps(catalog_document(bare, [catalog.model(model)]))
        digest = hashlib.sha256(content).hexdigest()[:32]
        return Document(content, f'"{digest}"')


def catalog_document(base: dict[str, Any], models: Iterable[ServedModel]) -> dict[str, Any]:
    """The OpenAPI document: `base` (FastAPI's own) and a typed path for each servable model."""
    paths: dict[str, Any] = dict(base.get("paths", {}))
    schemas: dict[str, Any] = {"Problem": problem_schema()}
    schemas.update(base.get("components", {}).get("schemas", {}))
    tags: list[dict[str, Any]] = [{"name": "models", "description": "Every served model."}]
    for model in models:
        contract = model.promise
        if contract is None or model.default_version is None:
            continue
        component = _component_name(model.name)
        schemas[f"{component}.Request"] = contract.request_schema()
        schemas[f"{component}.Response"] = contract.response_schema()
        paths[predict_path(model.name)] = {"post": _predict_operation(model, component)}
    components = {
        "schemas": schemas,
        "responses": {str(status): _problem_response(status) for status in _PREDICT_ERRORS},
        "headers": _RESPONSE_HEADERS,
        "parameters": _PARAMETERS,
    }
    return {**base, "openapi": OPENAPI_VERSION, "paths": paths, "components": components,
            "tags": tags}  # fmt: skip


def _predict_operation(model: ServedModel, component: str) -> dict[str, Any]:
    return {
        "tags": ["models"],
        "operationId": f"predict.{component}",
        "summary": f"Predict with {model.name}",
        "description": _operation_description(model),
        "parameters": [_version_parameter(model), {"$ref": "#/components/parameters/RequestId"}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{component}.Request"},
                    "example": model.request_example(),
                }
            },
        },
        "responses": {
            "200": {
                "description": "One element per input row, in order.",
                "headers": {
                    name: {"$ref": f"#/components/headers/{name}"} for name in _RESPONSE_HEADERS
                },
                "content": {
                    "application/json": {
                        "schema": {"$ref": f"#/components/schemas/{component}.Response"}
                    }
                },
            },
            **{
                str(status): {"$ref": f"#/components/responses/{status}"}
                for status in _PREDICT_ERRORS
            },
        },
    }


def _operation_description(model: ServedModel) -> str:
    lines = [model.description] if model.description else []
    lines.append(f"Default version: {model.default_version}.")
    if model.held is not None:
        lines.append(f"Version {model.held.number} is held: {model.held.reason}")
    return "\n\n".join(lines)


def _version_parameter(model: ServedModel) -> dict[str, Any]:
    choices = [str(v.number) for v in reversed(model.versions) if v.is_servable]
    named = [*sorted(model.aliases), "latest"]
    return {
        "name": VERSION_HEADER,
        "in": "header",
        "required": False,
        "description": (
            "A version number, an alias or `latest`; the default version where it is absent. "
            f"Ray's `{RAY_HEADER}` means the same. "
            f"Versions: {', '.join(choices[:20])}. Names: {', '.join(named)}."
        ),
        "schema": {"type": "string"},
        "example": str(model.default_version),
    }


@lru_cache(maxsize=4096)
def _component_name(name: str) -> str:
    """A component key (OpenAPI: `^[a-zA-Z0-9._-]+$`) that stays unique for any model name."""
    slug = _NOT_IN_A_COMPONENT_NAME.sub("_", name)
    if slug == name:
        return slug
    return f"{slug}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _problem_response(status: int) -> dict[str, Any]:
    errors = [error for error in all_errors() if error.status == status]
    return {
        "description": " · ".join(f"`{error.code}`: {error.title}" for error in errors),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {error.code: {"value": _problem_example(error)} for error in errors},
            }
        },
    }


def _problem_example(error: type[GatewayError]) -> dict[str, Any]:
    sample = GatewayError(error.title)
    document = problem_document(sample, instance="/models/name/predict", request_id="4f6c")
    return {
        **document,
        "type": document["type"].replace(sample.code, error.code),
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }


_RESPONSE_HEADERS: dict[str, Any] = {
    VERSION_HEADER: {
        "description": "The number of the version that answered.",
        "schema": {"type": "string"},
    },
    "X-Request-ID": {
        "description": "The caller's request id, or a new one.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds per step (W3C Server Timing).",
        "schema": {"type": "string"},
    },
}

_PARAMETERS: dict[str, Any] = {
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "required": False,
        "description": "Comes back in the answer and in the log; made up where absent.",
        "schema": {"type": "string"},
    }
}
