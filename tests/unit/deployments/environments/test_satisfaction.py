"""Whether an interpreter's packages meet what a version needs."""

from __future__ import annotations

import pytest

from deployments.environments.model_needs import Needs
from deployments.environments.requirement_lines import wanted
from deployments.environments.satisfaction import Installed, unmet

MARKERS = {"python_version": "3.11", "python_full_version": "3.11.7", "sys_platform": "linux",
           "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64",
           "implementation_name": "cpython"}  # fmt: skip
GATEWAY = Installed(
    python_minor=(3, 11),
    versions={
        "mlflow-skinny": "3.17.2",
        "scikit-learn": "1.9.1",
        "numpy": "2.1.0",
        "torch": "2.13.0+cpu",
        "ray": "2.60.0",
        "aiohttp": "3.9.0",
        "beta": "2.0rc1",
    },
    requires={
        "ray": (
            "click",
            "aiohttp>=3.7; extra == 'serve'",
            "starlette; extra == 'serve'",
            "ray[default]; extra == 'all-cpp'",
            "aiohttp>=3.7; extra == 'default'",
            "winlib; sys_platform == 'win32' and extra == 'default'",
            "ray[all_cpp]; extra == 'default'",
        )
    },
    marker_environment=MARKERS,
)


def told(
    *lines: str, python: tuple[int, int] = (3, 11), constraints: tuple[str, ...] = ()
) -> list[str]:
    needs = Needs(
        python_minor=python,
        requirements=tuple(map(wanted, lines)),
        constraints=tuple(map(wanted, constraints)),
    )
    return [str(each) for each in unmet(needs, GATEWAY)]


@pytest.mark.parametrize(
    "line",
    [
        "scikit-learn==1.9.1", "Scikit_Learn>=1.5", "numpy", "torch==2.13.0", "torch==2.13.0+cpu",
        "beta>=2.0rc1", "beta<3", "pywin32==1; sys_platform == 'win32'", "ray[default]==2.60.0",
        "mlflow==3.17.2", "mlflow==2.9.2", "mlflow<3,>=2.1", "mlflow", "mlflow-skinny==1.30.0",
        "mlflow~=2.9", "mlflow==2.*",
    ],
)  # fmt: skip
def test_what_is_there_is_met(line: str) -> None:
    """By version, by marker, by what an extra asks for, and MLflow by any that isn't older."""
    assert told(line) == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("scikit-learn==1.5.2", "needs scikit-learn==1.5.2, the gateway has 1.9.1"),
        ("xgboost==2.0.0", "needs xgboost==2.0.0, which the gateway hasn't"),
        ("torch==2.13.0+cu121", "needs torch==2.13.0+cu121, the gateway has 2.13.0+cpu"),
        ("numpy<2; python_version >= '3.8'", "needs numpy<2, the gateway has 2.1.0"),
        ("mlflow==3.18.0", "needs mlflow==3.18.0, the gateway has 3.17.2"),
        ("mlflow>=4", "needs mlflow>=4, the gateway has 3.17.2"),
        ("mlflow[gateway]", "needs mlflow[gateway], the gateway has 3.17.2 without that"),
        ("ray[serve]==2.60.0", "needs ray[serve], so starlette, which the gateway hasn't"),
        ("numpy @ https://u:pass1@h/numpy.zip",  # pragma: allowlist secret
         "needs numpy @ https://***@h/numpy.zip, the gateway has 2.1.0 of its own"),
        ("wheels/foo-1.0-py3-none-any.whl",
         "needs foo @ wheels/foo-1.0-py3-none-any.whl, which the gateway hasn't"),
        ("https://h/main.zip", "needs https://h/main.zip, which the gateway hasn't"),
    ],
)  # fmt: skip
def test_what_isnt_met_is_told_with_both_versions(line: str, sentence: str) -> None:
    """Also URLs and archives, under whose name there may be anything."""
    assert told(line) == [sentence]


def test_another_python_isnt_met_and_is_told_first() -> None:
    """The minor must be equal: pickles and wheels are of one."""
    assert told("xgboost", python=(3, 10))[0] == "needs Python 3.10, the gateway has 3.11"


def test_constraints_bind_what_is_there_and_ask_for_nothing() -> None:
    """A constraint on a package that isn't there is met."""
    assert told(constraints=("numpy<2", "polars<1")) == ["needs numpy<2, the gateway has 2.1.0"]


def test_what_a_lock_has_counts_and_not_what_was_named_beside_it() -> None:
    """It is what MLflow installs, whatever the requirements say that were logged with it."""
    needs = Needs(
        python_minor=(3, 11),
        requirements=(wanted("numpy==1.0"), wanted("polars")),
        lock="version = 1",
        locked=(wanted("numpy==2.1.0"), wanted("zoopkg==1.0 ; sys_platform == 'linux'")),
    )
    found = [each.needed for each in unmet(needs, GATEWAY)]
    assert found == ["polars", "zoopkg==1.0"]


def test_a_lock_alone_isnt_met() -> None:
    """What it names isn't known before uv has read it."""
    found = unmet(Needs(python_minor=(3, 11), lock="version = 1"), GATEWAY)
    assert [each.needed for each in found] == ["what its uv.lock names"]


def test_without_mlflow_in_the_interpreter_it_is_told() -> None:
    """An interpreter that has no MLflow at all can't meet it."""
    nothing = Installed(python_minor=(3, 11), versions={}, marker_environment=MARKERS)
    needs = Needs(python_minor=(3, 11), requirements=(wanted("mlflow==2.9.2"),))
    assert [str(each) for each in unmet(needs, nothing)] == [
        "needs mlflow==2.9.2, which the gateway hasn't"
    ]


def test_what_a_flavor_has_by_mlflow_alone_is_needed_too() -> None:
    """MLflow requires scikit-learn, MLflow's client doesn't; one who names it says which."""
    without = Installed(
        python_minor=(3, 11), versions={"mlflow-skinny": "3.17.2"}, marker_environment=MARKERS
    )

    def lacking(*lines: str) -> list[str]:
        needs = Needs(
            python_minor=(3, 11),
            requirements=tuple(map(wanted, lines)),
            flavors=("python_function", "sklearn"),
        )
        assert unmet(needs, GATEWAY) == ()
        return [str(each) for each in unmet(needs, without)]

    assert lacking("mlflow") == ["needs scikit-learn, which the gateway hasn't"]
    assert lacking("mlflow-skinny") == []
    assert lacking("mlflow", "scikit-learn") == ["needs scikit-learn, which the gateway hasn't"]


def test_this_interpreters_own_packages_are_found() -> None:
    """By canonical names, with what their extras ask for."""
    here = Installed.here()
    assert {"mlflow-skinny", "pydantic-settings"} <= set(here.versions)
    assert any("extra ==" in line for line in here.requires["httpx"])
