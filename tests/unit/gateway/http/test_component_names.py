"""What models are called in the document: readable, stable, and one's own after any generator."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.component_names import (
    INPUT,
    OUTPUT,
    PARAMS,
    REQUEST,
    WRAPPED,
    component_name,
    member_name,
    operation_id,
)

PARTS = (INPUT, OUTPUT, PARAMS, REQUEST, WRAPPED)

# Near each other, which names drawn from all of Unicode never are.
names = st.text(alphabet="abAB12_-. ßä", min_size=1, max_size=8) | st.lists(
    st.sampled_from(["a", "ab", "B", "input", "v2", "2", "Request", "predict"]),
    min_size=1,
    max_size=3,
).flatmap(lambda words: st.sampled_from("_-. ").map(lambda between: between.join(words)))


def pascal(key: str) -> str:
    """As generators write classes."""
    return "".join(word[:1].upper() + word[1:] for word in re.split("[^A-Za-z0-9]+", key))


def snake(key: str) -> str:
    """As generators write modules and functions: of the class's name."""
    parted = re.sub("([A-Z]+)([A-Z][a-z])", r"\1_\2", pascal(key))
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", parted).lower()


def camel_of_snake(key: str) -> str:
    """As those that go there and back."""
    return pascal(snake(key))


FORMS: tuple[Callable[[str], str], ...] = (pascal, snake, camel_of_snake)


@given(names, names)
@example("a-b", "a_b")
@example("a.b", "a b")
@example("ab", "AB")
@example("ab", "a_b")
@example("model1", "model_1")
@example("x", "x_input")
@example("ab", "predict_ab")
@example("ab_cd", "abcd")
def test_two_models_never_share_a_name(one: str, other: str) -> None:
    """Neither a component nor an operation, whatever a generator makes of their keys."""
    if one == other:
        return
    mine, theirs = component_name(one), component_name(other)
    for form in FORMS:
        of_mine = {form(f"{mine}.{part}") for part in PARTS}
        of_theirs = {form(f"{theirs}.{part}") for part in PARTS}
        assert len(of_mine) == len(PARTS)
        assert not of_mine & of_theirs, form
        assert form(operation_id(mine)) != form(operation_id(theirs))
        assert form(f"{operation_id(mine)}.Request") not in of_theirs


@given(names, st.lists(names, min_size=1, max_size=2))
def test_an_object_inside_is_called_like_no_other_model(model: str, path: list[str]) -> None:
    """Its name begins with that of its part, and no other model's does."""
    inside = pascal(f"{component_name('ab')}.{member_name(INPUT, path)}")
    if model != "ab":
        assert inside not in {pascal(f"{component_name(model)}.{part}") for part in PARTS}


@given(names | st.text(max_size=300))
def test_a_name_is_a_key_and_a_word_in_every_language(model: str) -> None:
    """Letters, digits and underscores, a letter first, short enough for a file."""
    assert re.fullmatch("[a-z][a-z0-9_]{0,79}", component_name(model))
    assert re.fullmatch("[a-z][a-z0-9_]{0,89}", operation_id(component_name(model)))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("translation_model", "translation_model"), ("iris", "iris"), ("m", "m"),
        ("model_v2", "model_v2"), ("resnet50", "resnet50"), ("class", "class"),
        ("churn-model", "churn_model_"), ("ChurnModel", "churn_model_"), ("Größe", "grosse_"),
        ("2024 sales", "model_2024_sales_"), ("日本", "model_"),
    ],
)  # fmt: skip
def test_names_can_be_read(model: str, name: str) -> None:
    """A plain one is itself; another one its words, with eight letters that tell it apart."""
    found = component_name(model)
    assert found == name or re.fullmatch(f"{name}[bcdfghjklmnpqrstvwxz]{{8}}", found)
    assert (found == name) == (not name.endswith("_"))


def test_names_do_not_change() -> None:
    """Clients were generated with them: what is here may be added to, and never changed."""
    assert [component_name(model) for model in ("a-b", "a.b", "a_b", "A_B", "Größe")] == [
        "a_b_sbwqckvm", "a_b_nckxfgxv", "a_b_pfwvqbmv", "a_b_bbjtfrzf", "grosse_wccpgzkw",
    ]  # fmt: skip


def test_words_of_languages_are_told_apart_by_what_is_before_or_behind() -> None:
    """No component and no operation is a keyword alone."""
    for one, other in combinations((*keyword.kwlist, "null", "undefined", "new", "public"), 2):
        assert operation_id(component_name(one)) != operation_id(component_name(other))
        assert not keyword.iskeyword(operation_id(component_name(one)))
