"""One OpenAPI 3.1 document for the whole catalog, or for a single model.

The gateway's own routes come from FastAPI; each model adds a path of its own with typed schemas
(OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0, whose schemas are JSON Schema 2020-12).
A model that can't be served by default has no path.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from gateway.catalog import Catalog, ServedModel
from gateway.contract import json_schema
from gateway.errors import GatewayError, all_errors
from gateway.http.predict.deadline_header import TIMEOUT_HEADER, TIMEOUT_PATTERN
from gateway.http.predict.path import predict_path
from gateway.http.predict.version_header import RAY_HEADER, VERSION_HEADER
from gateway.http.problems import MEDIA_TYPE, problem_document, problem_schema

OPENAPI_VERSION = "3.1.0"

# Statuses that a predict route can answer with (design: one table for all models).
_PREDICT_ERRORS = (400, 404, 406, 408, 409, 413, 415, 422, 429, 500, 503, 504)

# What it answers beside these, where keys are on.
_KEY_ERRORS = (401, 403)

_NOT_IN_A_COMPONENT_NAME = re.compile(r"[^A-Za-z0-9._-]+")


# How many models are rendered before others on the event loop have their turn: about 2 ms.
_SLICE = 4

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered document and its strong entity tag (RFC 9110, section 8.8.3), with quotes."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _ModelPart:
    """What a model adds to the document, as JSON: its schemas by name and its path's operation.

    `operation` is None where the model can't be served by default. `digest` is of all of it.
    """

    model: ServedModel
    schemas: dict[str, orjson.Fragment]
    operation: orjson.Fragment | None
    digest: bytes


class DocumentLibrary:
    """Renders documents from parts that it keeps, one per model: a model that changed costs its
    own part alone, however many there are beside it.

    With `needs_keys` each prediction says so; what `base` has is described already.
    """

    def __init__(self, base: dict[str, Any], *, needs_keys: bool = False) -> None:
        self._base = base
        self._needs_keys = needs_keys
        self._parts: dict[str, _ModelPart] = {}
        self._catalog: Catalog | None = None
        self._whole: Document | None = None

    async def prepare(self, catalog: Catalog) -> None:
        """Render what `document` will need, in slices, so that no request waits for all of it."""
        changed = [model for model in catalog.models.values() if self._is_stale(model)]
        for number, model in enumerate(changed):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            self._part(model)

    def document(self, catalog: Catalog, model: str | None = None) -> Document:
        """The document of all models, or of one; raises ModelNotFound."""
        if model is not None:
            bare = {**self._base, "paths": {}, "components": {}}
            return self._assembled(bare, [self._part(catalog.model(model))])
        if self._whole is None or catalog is not self._catalog:
            self._whole = self._assembled(self._base, self._all_parts(catalog))
            self._catalog = catalog
        return self._whole

    def document_of(self, models: Iterable[ServedModel]) -> Document:
        """The document of some of the models of a catalog that was prepared; it is not kept."""
        in_order = sorted(models, key=lambda model: model.name)
        return self._assembled(self._base, [self._part(model) for model in in_order])

    def _assembled(self, base: dict[str, Any], parts: Iterable[_ModelPart]) -> Document:
        return _assembled(base, parts, needs_keys=self._needs_keys)

    def _all_parts(self, catalog: Catalog) -> list[_ModelPart]:
        self._parts = {name: p for name, p in self._parts.items() if name in catalog.models}
        return [self._part(catalog.models[name]) for name in sorted(catalog.models)]

    def _is_stale(self, model: ServedModel) -> bool:
        part = self._parts.get(model.name)
        return part is None or (part.model is not model and part.model != model)

    def _part(self, model: ServedModel) -> _ModelPart:
        if self._is_stale(model):
            self._parts[model.name] = _rendered(model, needs_keys=self._needs_keys)
        return self._parts[model.name]


def require_key(operation: dict[str, Any], which: str) -> None:
    """Describe that an operation needs a key; `which` is a sentence about that."""
    operation["description"] = "\n\n".join(filter(None, (operation.get("description"), which)))
    operation["security"] = [{_SECURITY_SCHEME: []}]
    refusals = {str(status): _reference("responses", str(status)) for status in _KEY_ERRORS}
    operation["responses"] = dict(sorted({**operation["responses"], **refusals}.items()))


def _assembled(base: dict[str, Any], parts: Iterable[_ModelPart], *, needs_keys: bool) -> Document:
    """The OpenAPI document: `base` (FastAPI's own) and a typed path for each servable model."""
    digest = hashlib.blake2b(orjson.dumps(base), digest_size=_DIGEST_BYTES)
    paths: dict[str, Any] = dict(base.get("paths", {}))
    schemas: dict[str, Any] = {"Problem": problem_schema()}
    schemas.update(base.get("components", {}).get("schemas", {}))
    for part in parts:
        digest.update(part.digest)
        schemas.update(part.schemas)
        if part.operation is not None:
            paths[predict_path(part.model.name)] = {"post": part.operation}
    document = {
        **base,
        "openapi": OPENAPI_VERSION,
        "paths": paths,
        "components": {**_shared_components(needs_keys=needs_keys), "schemas": schemas},
        "tags": [{"name": "models", "description": "Every served model."}],
    }
    return Document(orjson.dumps(document), f'"{digest.hexdigest()}"')


@cache
def _shared_components(*, needs_keys: bool) -> dict[str, Any]:
    errors = (*_PREDICT_ERRORS, *_KEY_ERRORS) if needs_keys else _PREDICT_ERRORS
    components = {
        "responses": {str(status): _problem_response(status) for status in sorted(errors)},
        "headers": _RESPONSE_HEADERS,
        "parameters": _PARAMETERS,
    }
    return {**components, "securitySchemes": _SECURITY_SCHEMES} if needs_keys else components


def _rendered(model: ServedModel, *, needs_keys: bool) -> _ModelPart:
    contract = model.promise
    if contract is None or model.default_version is None:
        return _ModelPart(model, {}, None, b"")
    component = _component_name(model.name)
    # Requests have the record in them three times, so that it is worth a component of its own.
    record = {"$ref": f"#/components/schemas/{component}.Input"}
    schemas = {
        f"{component}.Input": json_schema.record_schema(contract.accepted),
        f"{component}.Request": json_schema.request_schema(
            contract.accepted, contract.accepted_params, record=record
        ),
        f"{component}.Response": contract.response_schema(),
    }
    texts = {name: orjson.dumps(schema) for name, schema in schemas.items()}
    described = _predict_operation(model, component)
    if needs_keys:
        require_key(described, "Needs a key with the scope `predict` for this model.")
    operation = orjson.dumps(described)
    digest = hashlib.blake2b(operation, digest_size=_DIGEST_BYTES)
    for text in texts.values():
        digest.update(text)
    fragments = {name: orjson.Fragment(text) for name, text in texts.items()}
    return _ModelPart(model, fragments, orjson.Fragment(operation), digest.digest())


def _predict_operation(model: ServedModel, component: str) -> dict[str, Any]:
    return {
        "tags": ["models"],
        "operationId": f"predict.{component}",
        "summary": f"Predict with {model.name}",
        "description": _operation_description(model),
        "parameters": [
            _version_parameter(model),
            *({"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS),
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": _request_content(model, component)},
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
            **{str(status): _reference("responses", str(status)) for status in _PREDICT_ERRORS},
        },
    }


def _request_content(model: ServedModel, component: str) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{component}.Request"}}
    example = model.request_example()
    return content if example is None else {**content, "example": example}


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


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


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
    },
    "RequestTimeout": {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "description": (
            "Seconds until the request is answered with 504; lowers the model's own deadline."
        ),
        "schema": {"type": "string", "pattern": TIMEOUT_PATTERN},
        "example": "2.5",
    },
}

_SECURITY_SCHEME = "key"

_SECURITY_SCHEMES: dict[str, Any] = {
    _SECURITY_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of this gateway, made by `modelmux keys new`.",
    }
}
