"""The document of many models, rendered in parts."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gateway.catalog import Catalog
from gateway.http import openapi
from gateway.http.component_names import component_name
from gateway.http.openapi import DocumentLibrary
from tests.support.catalogs import BREAKING, catalog, served, signature, version

BASE: dict[str, Any] = {"info": {"title": "t", "version": "1"}, "paths": {"/own": {}}}
NAMES = [f"model {number}" for number in range(50)]


def _catalog(**changed: Any) -> Catalog:
    models = [served(version(1), name=name) for name in NAMES]
    return catalog(models[0].model_copy(update=changed), *models[1:])


def _document(library: DocumentLibrary, now: Catalog) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(library.document(now).content)
    return document


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models whose parts were rendered."""
    names: list[str] = []
    render = openapi._rendered

    def noting(model: Any, **how: Any) -> Any:
        names.append(model.name)
        return render(model, **how)

    monkeypatch.setattr(openapi, "_rendered", noting)
    return names


def test_a_model_that_changed_is_the_only_one_rendered(rendered: list[str]) -> None:
    """The parts of all others are those of the document before, though the objects be copies."""
    library = DocumentLibrary(BASE)
    library.document(_catalog())
    rendered.clear()
    document = _document(library, _catalog(description="It has changed."))
    assert rendered == [NAMES[0]]
    assert "It has changed." in orjson.dumps(document).decode()


def test_parts_make_the_document_that_one_piece_would(rendered: list[str]) -> None:
    """Whatever was shown before, a document is that of its catalog alone."""
    library = DocumentLibrary(BASE)
    changed = _catalog(contract=BREAKING, description="Other.")
    for now in (changed, catalog(served(version(1))), _catalog()):
        assert library.document(now) == DocumentLibrary(BASE).document(now)


def test_a_model_that_is_gone_is_in_no_document() -> None:
    """Its path and its schemas go with it."""
    library = DocumentLibrary(BASE)
    library.document(_catalog())
    document = _document(library, catalog(served(version(1), name=NAMES[0])))
    assert len(document["paths"]) == 2
    named = {key.partition(".")[0] for key in document["components"]["schemas"] if "." in key}
    assert named == {component_name(NAMES[0])}


def test_a_model_that_cannot_be_served_has_no_path() -> None:
    """It is in the catalog, and not in the document."""
    model = served(version(1)).model_copy(update={"default_version": None, "contract": None})
    assert list(_document(DocumentLibrary(BASE), catalog(model))["paths"]) == ["/own"]


async def test_preparing_renders_all_and_lets_others_run(rendered: list[str]) -> None:
    """Between the parts other tasks have their turns, and nothing is left for the document."""
    library = DocumentLibrary(BASE)
    preparing = asyncio.create_task(library.prepare(_catalog()))
    turns = 0
    while not preparing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 10
    assert sorted(rendered) == sorted(NAMES)
    rendered.clear()
    library.document(_catalog())
    assert rendered == []


@pytest.mark.parametrize("name", ["$ref", "reference"])
def test_no_example_looks_like_a_reference(name: str) -> None:
    """Linters and generators look for `$ref` in examples, too, and fail on a column's text."""
    text = signature(("x", "double"), (name, "string"))
    (path,) = (
        operations
        for route, operations in _document(
            DocumentLibrary(BASE), catalog(served(version(1, text)))
        )["paths"].items()
        if route.endswith("/predict")
    )
    said = path["post"]["requestBody"]["content"]["application/json"]
    assert ("example" in said) == (name != "$ref")
