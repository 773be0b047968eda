"""What a document promised holds for the answers of all later defaults."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.catalog import Catalog, ServedModel
from gateway.contract.outputs import Output
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from tests.support.catalogs import record, signature, version

POLICY = DefaultPolicy()
VALUES = {"double": 0.5, "long": 7, "string": "why", "boolean": True}

Outputs = tuple[tuple[Any, ...], ...]


class Generations:
    """A model whose newest version is its default, if the gate lets it through."""

    def __init__(self) -> None:
        self.catalog: Catalog | None = None
        self.versions: list[Any] = []
        self.answered: dict[int, Output] = {}
        self.documents: list[dict[str, Any]] = []

    def register(self, outputs: Outputs, more: tuple[str, ...] = ()) -> ServedModel:
        """Register a version with these outputs, which answers `more` that it doesn't declare."""
        number = len(self.versions) + 1
        self.versions.append(version(number, signature(("x", "double"), outputs=outputs)))
        said = {name: VALUES[type_] for name, type_, *_ in outputs}
        said |= {name: ["undeclared"] for name in more if name not in said}
        self.answered[number] = ("columns", list(said), [[value] for value in said.values()])
        plan = build_catalog((record(*self.versions),), self.catalog, policy=POLICY)
        self.catalog = plan.catalog
        model = plan.catalog.models["m"]
        assert model.promise is not None
        self.documents.append(model.promise.response_schema())
        return model

    def answers(self) -> list[Any]:
        """What each version answers that may, the default among them."""
        assert self.catalog is not None
        model = self.catalog.models["m"]
        able = [v for v in self.versions if not self.catalog.differences(model, v)]
        resolved = [self.catalog.resolve("m", str(v.number)) for v in able]
        return [
            json.loads(each.contract.render([(range(1), self.answered[each.version.number])], 1))
            for each in resolved
        ]

    def require_promises(self) -> None:
        """Every answer is valid by every document that was published, by two validators' word."""
        for document in self.documents:
            Draft202012Validator.check_schema(document)
            for answer in self.answers():
                Draft202012Validator(document).validate(answer)
                jsonschema_rs.validator_for(document).validate(answer)


def test_an_added_output_is_valid_by_the_document_of_before() -> None:
    """A default that adds an output takes over and answers with it, and who was told of the
    contract before finds the answer valid."""
    generations = Generations()
    generations.register((("score", "double"),))
    model = generations.register((("score", "double"), ("why", "string")))
    assert model.default_version == 2
    assert [{"score": 0.5, "why": "why"}] in generations.answers()
    generations.require_promises()


def test_an_output_that_went_never_comes_back_as_something_else() -> None:
    """An optional output may go and come back, but not with another type: the first callers were
    told what it is."""
    generations = Generations()
    generations.register((("score", "double"), ("why", "string", False)))
    assert generations.register((("score", "double"),)).default_version == 2
    model = generations.register((("score", "double"), ("why", "long")))
    assert model.default_version == 2
    assert model.held is not None
    assert [each["pointer"] for each in model.held.differences] == ["/why"]
    assert generations.register((("score", "double"), ("why", "string"))).default_version == 4
    generations.require_promises()


def test_what_a_version_says_undeclared_is_no_answer() -> None:
    """A value that a model gives and doesn't declare is left out, also where another version was
    to answer something else by that name."""
    generations = Generations()
    generations.register((("score", "double"), ("why", "string", False)))
    generations.register((("score", "double"),), more=("why",))
    assert generations.answers() == [[{"score": 0.5, "why": "why"}], [{"score": 0.5}]]
    generations.require_promises()


SCALARS = st.sampled_from(sorted(VALUES))
FIELDS = st.tuples(st.sampled_from("abc"), SCALARS, st.booleans())


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.lists(FIELDS, min_size=1, max_size=3, unique_by=lambda field: field[0]),
            st.sets(st.sampled_from("abc")),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_every_generations_document_holds_for_the_answers_of_the_next(drawn: Any) -> None:
    """Whatever versions follow each other: what answers now keeps what was ever published."""
    generations = Generations()
    for outputs, more in drawn:
        generations.register(tuple(outputs), tuple(sorted(more)))
        generations.require_promises()
