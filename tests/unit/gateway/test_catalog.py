"""How names and selectors resolve in a catalog."""

from __future__ import annotations

import pytest

from gateway.catalog import Moment, ServedModel
from gateway.errors import (
    ModelNotFound,
    ModelUnavailable,
    ModelUnservable,
    SignatureMismatch,
    VersionNotFound,
)
from tests.support.catalogs import BREAKING, LOOSER, catalog, served, version

VERSIONS = (
    version(1),
    version(2, LOOSER),
    version(3, BREAKING),
    version(4, None, problem="It has no signature."),
    version(5, None, registry_status="PENDING_REGISTRATION"),
)
CATALOG = catalog(served(*VERSIONS, default=1, aliases={"old": 1, "new": 2, "dangling": 9}))


@pytest.mark.parametrize(
    ("selector", "number"), [(None, 1), ("1", 1), ("2", 2), ("old", 1), ("new", 2)]
)
def test_a_selector_picks_its_version(selector: str | None, number: int) -> None:
    """None is the default; a number and an alias name a version."""
    assert CATALOG.resolve("m", selector).version.number == number


@pytest.mark.parametrize(
    ("selector", "error"),
    [
        ("3", SignatureMismatch),
        ("4", ModelUnservable),
        ("5", ModelUnavailable),
        ("latest", ModelUnservable),
        ("6", VersionNotFound),
        ("01", VersionNotFound),
        ("dangling", VersionNotFound),
        ("", VersionNotFound),
        ("١", VersionNotFound),
    ],
)
def test_a_selector_that_cannot_answer_says_how(selector: str, error: type[Exception]) -> None:
    """Breaking, unservable, pending and missing versions are different errors."""
    with pytest.raises(error):
        CATALOG.resolve("m", selector)


@pytest.mark.parametrize(
    ("model", "there_is"),
    [
        (
            CATALOG.models["m"],
            "the versions 5, 4, 3, 2, 1, and the names dangling, new, old, latest",
        ),
        (served(version(1)), "the version 1, and the name latest"),
        (
            served(*(version(n) for n in range(1, 23))),
            f"the versions {', '.join(map(str, range(22, 2, -1)))} and older ones, and the name "
            "latest",
        ),
    ],
)
def test_who_asks_for_a_version_that_isnt_there_hears_what_is(
    model: ServedModel, there_is: str
) -> None:
    """The newest numbers and the names, as a sentence."""
    with pytest.raises(VersionNotFound, match=f"It has {there_is}\\.$"):
        catalog(model).resolve("m", "99")


def test_an_unknown_model_is_its_own_error() -> None:
    """A name that nothing is registered under."""
    with pytest.raises(ModelNotFound):
        CATALOG.resolve("other", None)


def test_a_mismatch_carries_the_versions_and_the_differences() -> None:
    """The 409 says which version was asked for, which one promises, and what differs."""
    with pytest.raises(SignatureMismatch) as caught:
        CATALOG.resolve("m", "3")
    members = caught.value.members()
    assert (members["requested_version"], members["default_version"]) == (3, 1)
    assert {difference["section"] for difference in members["differences"]} == {"inputs"}


def test_a_model_without_default_is_unservable_with_its_reason() -> None:
    """Where nothing may answer by default the caller is told why."""
    model = served(version(1)).model_copy(
        update={"default_version": None, "contract": None, "problem": "No version is READY."}
    )
    with pytest.raises(ModelUnservable, match="No version is READY"):
        catalog(model).resolve("m", None)


def test_exact_compatibility_refuses_what_is_only_compatible() -> None:
    """With `exact`, a version with an optional column more may not answer."""
    exact = CATALOG.model_copy(update={"compatibility": "exact"})
    with pytest.raises(SignatureMismatch):
        exact.resolve("m", "2")


def test_the_example_is_accepted_by_the_contract() -> None:
    """A made-up example is a body that the model's own contract takes."""
    import orjson

    resolution = CATALOG.resolve("m", None)
    body = orjson.dumps(CATALOG.model("m").request_example())
    assert resolution.contract.parse(body).rows == 1


def test_warnings_of_the_moment_change_nothing_else() -> None:
    """They come after a model's own; other models are the very objects that they were, as is the
    generation, and a model that isn't there is warned about in vain."""
    own = served(version(1), default=1).model_copy(update={"name": "own", "warnings": ("First.",)})
    before = CATALOG.model_copy(update={"models": {**CATALOG.models, "own": own}})
    after = before.at(Moment(warnings={"own": ["Second."], "gone": ["Third."]}))
    assert after.models["own"].warnings == ("First.", "Second.")
    assert after.models["m"] is before.models["m"]
    assert after.models.keys() == before.models.keys()
    assert after.generation == before.generation
    assert before.at(Moment()) is before
