"""One OpenAPI 3.1 document for the whole catalog, or for a single model.

The gateway's own routes come from FastAPI; each model adds a path of its own with typed schemas
(OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0, whose schemas are JSON Schema 2020-12).
A model that can't be served by default has no path.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.catalog import Catalog, ServedModel
from gateway.contract import Contract, json_schema
from gateway.contract.body import wraps
from gateway.http.component_names import (
    INPUT,
    OUTPUT,
    PARAMS,
    REQUEST,
    WRAPPED,
    component_name,
    operation_id,
)
from gateway.http.predict.path import predict_path
from gateway.http.predict.version_header import RAY_HEADER, VERSION_HEADER
from gateway.http.problem_schemas import problem_schemas
from gateway.http.schema_parts import taken_apart
from gateway.http.shared_components import (
    PARAMETERS,
    PREDICT_ERRORS,
    RESPONSE_HEADERS,
    refer_to_problems,
    reference,
    require_key,
    shared_components,
)

OPENAPI_VERSION = "3.1.0"

TAGS = (
    {"name": "models", "description": "Predictions: a typed operation for each served model."},
    {"name": "catalog", "description": "What is served."},
    {"name": "operation", "description": "Health, metrics, and looking at the registry."},
)

# What every document begins with: where it is served is said behind it (`Document.content_at`).
_HEAD = b'{"openapi":"%s",' % OPENAPI_VERSION.encode()

# How many models are rendered before others on the event loop have their turn: about 2 ms.
_SLICE = 4

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered document and its strong entity tag (RFC 9110, section 8.8.3), with quotes."""

    content: bytes
    etag: str

    def content_at(self, server: str) -> bytes:
        """The content that says where the gateway is: an address, or a path on the address that the
        document came from (OpenAPI 3.1, Server Object)."""
        servers = b'"servers":%s,' % orjson.dumps([{"url": server}])
        return b"".join((_HEAD, servers, memoryview(self.content)[len(_HEAD) :]))

    def etag_at(self, server: str) -> str:
        """The entity tag of that content."""
        told = hashlib.blake2b(f"{self.etag} {server}".encode(), digest_size=_DIGEST_BYTES)
        return f'"{told.hexdigest()}"'


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


def _assembled(base: dict[str, Any], parts: Iterable[_ModelPart], *, needs_keys: bool) -> Document:
    """The OpenAPI document: `base` (FastAPI's own) and a typed path for each servable model."""
    digest = hashlib.blake2b(orjson.dumps(base), digest_size=_DIGEST_BYTES)
    paths: dict[str, Any] = dict(base.get("paths", {}))
    schemas = {**base.get("components", {}).get("schemas", {}), **problem_schemas()}
    for part in parts:
        digest.update(part.digest)
        schemas.update(part.schemas)
        if part.operation is not None:
            paths[predict_path(part.model.name)] = {"post": part.operation}
    document = {
        "openapi": OPENAPI_VERSION,  # first: see `_HEAD`
        **{name: member for name, member in base.items() if name != "openapi"},
        "paths": paths,
        "components": {**shared_components(needs_keys=needs_keys), "schemas": schemas},
        "tags": TAGS,
    }
    return Document(orjson.dumps(document), f'"{digest.hexdigest()}"')


def _rendered(model: ServedModel, *, needs_keys: bool) -> _ModelPart:
    contract = model.promise
    if contract is None or model.default_version is None:
        return _ModelPart(model, {}, None, b"")
    name = component_name(model.name)
    texts = {key: orjson.dumps(schema) for key, schema in _schemas(contract, name).items()}
    described = _predict_operation(model, name)
    if needs_keys:
        require_key(described, "Needs a key with the scope `predict` for this model.")
    operation = orjson.dumps(described)
    digest = hashlib.blake2b(operation, digest_size=_DIGEST_BYTES)
    for text in texts.values():
        digest.update(text)
    fragments = {key: orjson.Fragment(text) for key, text in texts.items()}
    return _ModelPart(model, fragments, orjson.Fragment(operation), digest.digest())


def _schemas(contract: Contract, name: str) -> dict[str, Any]:
    """A model's components. None has a title: generators would name their classes by it, and all
    models' would be called the same."""
    row = reference("schemas", f"{name}.{INPUT}")
    wrapper = reference("schemas", f"{name}.{WRAPPED}")
    forms = json_schema.request_forms(contract.accepted, row=row, wrapper=wrapper)
    schemas = {
        **taken_apart(name, INPUT, json_schema.record_schema(contract.accepted)),
        **taken_apart(name, OUTPUT, json_schema.answer_schema(contract.promised)),
        f"{name}.{REQUEST}": {"anyOf": forms},
    }
    if wraps(contract.accepted):
        params = reference("schemas", f"{name}.{PARAMS}")
        schemas |= taken_apart(name, PARAMS, json_schema.params_object(contract.accepted_params))
        schemas[f"{name}.{WRAPPED}"] = json_schema.wrapper_schema(row, params)
    return schemas


def _predict_operation(model: ServedModel, name: str) -> dict[str, Any]:
    operation = {
        "tags": ["models"],
        "operationId": operation_id(name),
        "summary": f"Predict with {model.name}",
        "description": _operation_description(model),
        "parameters": [
            _version_parameter(model),
            *(reference("parameters", parameter) for parameter in PARAMETERS),
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": _request_content(model, name)},
        },
        "responses": {"200": _answer(name)},
    }
    refer_to_problems(operation, PREDICT_ERRORS)
    return operation


def _request_content(model: ServedModel, name: str) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": reference("schemas", f"{name}.{REQUEST}")}
    example = model.request_example()
    if example is None or _refers(example):
        return content
    return {**content, "example": example}


def _refers(example: Any) -> bool:
    """Whether tools would take a part of the example for a reference (JSON Reference): they look
    for `$ref` wherever an object is, and find nothing where a value of a model's leads."""
    if isinstance(example, dict):
        return "$ref" in example or any(map(_refers, example.values()))
    return isinstance(example, list) and any(map(_refers, example))


def _answer(name: str) -> dict[str, Any]:
    rows = {"type": "array", "items": reference("schemas", f"{name}.{OUTPUT}")}
    return {
        "description": json_schema.ANSWER,
        "headers": {header: reference("headers", header) for header in RESPONSE_HEADERS},
        "content": {"application/json": {"schema": rows}},
    }


def _operation_description(model: ServedModel) -> str:
    lines = [model.description] if model.description else []
    lines.append(f"Default version: {model.default_version}.")
    if model.default is not None and model.default.typing_note is not None:
        lines.append(model.default.typing_note)
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
        # No example: Swagger UI would send it, and to name a version is another thing than not to.
        "schema": {"type": "string"},
    }
