"""Which environment a version runs in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.environments.choice import NoEnvironment, choose, mode_of, on_another_python
from deployments.environments.model_needs import Needs, Unreadable
from deployments.environments.requirement_lines import wanted
from deployments.environments.satisfaction import Installed
from gateway.catalog import EnvironmentMode

HERE = Installed(python_minor=(3, 11), versions={"scikit-learn": "1.9.1", "numpy": "2.3.0"})
MET = Needs(python_minor=(3, 11), requirements=(wanted("scikit-learn==1.9.1"),))
OTHER = Needs(python_minor=(3, 11), requirements=(wanted("scikit-learn==1.5.2"),))
OLDER = Needs(python_minor=(3, 10), requirements=(wanted("scikit-learn==1.9.1"),))
STRANGE = Unreadable(why="isn't YAML", file="conda.yaml")


def test_a_version_that_the_gateway_has_all_for_runs_there() -> None:
    """Nothing is built for it."""
    choice = choose(MET, "auto", HERE)
    assert (choice.kind, choice.needs, choice.warning) == ("gateway", None, None)


@pytest.mark.parametrize(
    ("needs", "why"),
    [
        (OTHER, "its own: needs scikit-learn==1.5.2, the gateway has 1.9.1"),
        (OLDER, "its own: needs Python 3.10, the gateway has 3.11"),
    ],
)
def test_one_that_needs_something_else_runs_on_its_own(needs: Needs, why: str) -> None:
    """And it is told what that is."""
    choice = choose(needs, "auto", HERE)
    assert (choice.kind, choice.needs, choice.why) == ("own", needs, why)


def test_a_shared_environment_is_never_silently_another_one() -> None:
    """The warning names the packages and both versions."""
    choice = choose(OTHER, "shared", HERE)
    assert (choice.kind, choice.needs) == ("gateway", None)
    assert choice.warning is not None
    assert "scikit-learn==1.5.2" in choice.warning
    assert "1.9.1" in choice.warning
    assert choose(MET, "shared", HERE).warning is None


def test_own_is_own_though_the_gateway_has_all() -> None:
    """Whoever asks for it gets it."""
    assert choose(MET, "own", HERE).needs == MET


@pytest.mark.parametrize("mode", ["auto", "own"])
def test_what_cannot_be_read_is_not_guessed(mode: EnvironmentMode) -> None:
    """Such a version can't be served, and it is told which file it is."""
    with pytest.raises(NoEnvironment, match=r"conda\.yaml"):
        choose(STRANGE, mode, HERE)


def test_what_cannot_be_read_is_a_warning_where_nothing_is_built() -> None:
    """It runs where it would run anyway."""
    choice = choose(STRANGE, "shared", HERE)
    assert choice.kind == "gateway"
    assert "conda.yaml" in (choice.warning or "")


@pytest.mark.parametrize(
    ("named", "mode", "told"),
    [
        (MET, "auto", "scikit-learn=0.22 (the gateway has 1.9.1); libgomp."),
        (OTHER, "auto", "scikit-learn=0.22; libgomp."),
    ],
)
def test_what_only_conda_could_install_is_told(
    named: Needs, mode: EnvironmentMode, told: str
) -> None:
    """As MLflow does, it is left out; no version is silently served without it."""
    choice = choose(replace(named, conda_only=("scikit-learn=0.22", "libgomp")), mode, HERE)
    assert choice.warning == f"Packages that it names for conda aren't installed for it: {told}"


@pytest.mark.parametrize(
    ("tag", "setting", "mode"),
    [
        (None, "auto", "auto"),
        (None, "own", "own"),
        ("own", "auto", "own"),
        ("shared", "own", "shared"),
        ("auto", "own", "auto"),
        (None, "shared", "shared"),
        ("auto", "shared", "shared"),
    ],
)
def test_a_tag_wins_unless_builds_are_forbidden(
    tag: EnvironmentMode | None, setting: EnvironmentMode, mode: EnvironmentMode
) -> None:
    """A registry can't have a gateway build that is set to build nothing."""
    assert mode_of(tag, setting) == mode


def test_a_tag_that_asks_for_what_is_forbidden_is_told_so() -> None:
    """Other packages than those are no answer to it."""
    with pytest.raises(NoEnvironment, match="set to build none"):
        mode_of("own", "shared")


def test_another_python_is_told() -> None:
    """The packages are the version's own still."""
    choice = on_another_python(choose(OLDER, "auto", HERE), (3, 11), least=(3, 8))
    assert choice.needs == Needs(python_minor=(3, 11), requirements=OLDER.requirements)
    assert choice.warning == "It needs Python 3.10, which isn't here, and runs on Python 3.11."


def test_a_python_that_is_too_old_is_told_as_that() -> None:
    """It may well be on this machine."""
    choice = on_another_python(choose(OLDER, "auto", HERE), (3, 11), least=(3, 11))
    told = "It needs Python 3.10, which is older than 3.11, the least, and runs on Python 3.11."
    assert choice.warning == told
