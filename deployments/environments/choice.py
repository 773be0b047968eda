"""Which environment a version runs in: the gateway's own packages, or some of its own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from deployments.environments.model_needs import Minor, Needs, Unreadable, conda_name
from deployments.environments.satisfaction import Installed, Unmet, leans_on_client, unmet
from gateway.catalog import EnvironmentMode
from registry_sync.masking import shown

Kind = Literal["gateway", "own"]

_SHOWN = 8


class NoEnvironment(Exception):
    """No environment can be had for a version; `reason` is a sentence that may be shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An environment that a version is to run in, and `why`, as part of a sentence.

    `needs` are those that it is built by, None where it is the gateway's. `warning` says what the
    version needs and won't have there; None where there is no such thing. `otherwise` are the
    needs that it is built by once it was seen that the gateway's packages aren't enough, which
    can't be known before; None where they are, or nothing may be built.
    """

    kind: Kind
    why: str
    needs: Needs | None = None
    warning: str | None = None
    otherwise: Needs | None = None


def mode_of(tag: EnvironmentMode | None, setting: EnvironmentMode) -> EnvironmentMode:
    """The mode by a version's tag, where it has one, and by the setting. A gateway that is told to
    build nothing doesn't, whatever a registry says; raises NoEnvironment for a version that asks
    for what it can't have then."""
    if setting != "shared":
        return tag or setting
    if tag == "own":
        raise NoEnvironment(
            "Its tag asks for an environment of its own, and this gateway is set to build none."
        )
    return "shared"


def choose(needs: Needs | Unreadable, mode: EnvironmentMode, installed: Installed) -> Choice:
    """The environment for what a version says that it needs; `installed` is the gateway's own.
    Raises NoEnvironment where that can't be read and isn't the gateway's anyway."""
    if isinstance(needs, Unreadable):
        if mode != "shared":
            raise NoEnvironment(f"What it says of its packages can't be taken: {needs}.")
        return Choice(
            kind="gateway", why=_FORBIDDEN, warning=f"What it needs can't be read: {needs}."
        )
    return _with_conda_only(_chosen(needs, mode, installed), needs, installed)


def _chosen(needs: Needs, mode: EnvironmentMode, installed: Installed) -> Choice:
    missing = unmet(needs, installed)
    if mode == "own":
        why = f"its own: {_named(missing)}" if missing else "its own, as its tag or the setting has"
        return Choice(kind="own", why=why, needs=needs)
    if not missing:
        why = "the gateway's, which has all that it needs"
        may_lack = mode == "auto" and leans_on_client(needs, installed)
        return Choice(kind="gateway", why=why, otherwise=needs if may_lack else None)
    if mode == "shared":
        warning = f"It runs with other packages than it needs: it {_named(missing)}."
        return Choice(kind="gateway", why=_FORBIDDEN, warning=warning)
    return Choice(kind="own", why=f"its own: {_named(missing)}", needs=needs)


def as_it_lacked(choice: Choice, module: str) -> Choice:
    """The environment instead, where the gateway's packages lacked that module."""
    why = f"its own: imports {shown(module)}, which the gateway hasn't and MLflow may bring"
    return replace(choice, kind="own", why=why, needs=choice.otherwise, otherwise=None)


def on_another_python(choice: Choice, minor: Minor, *, least: Minor) -> Choice:
    """The same environment with a Python that is here, where the version's own isn't, or is older
    than the least that runs models."""
    assert choice.needs is not None
    wanted, here = choice.needs.python, "{}.{}".format(*minor)
    is_old = choice.needs.python_minor < least
    why = "is older than {}.{}, the least".format(*least) if is_old else "isn't here"
    warning = f"It needs Python {wanted}, which {why}, and runs on Python {here}."
    return _warned(replace(choice, needs=replace(choice.needs, python_minor=minor)), warning)


def _with_conda_only(choice: Choice, needs: Needs, installed: Installed) -> Choice:
    """The same choice, with a warning of what only conda could install."""
    if not needs.conda_only:
        return choice
    has = installed.versions if choice.kind == "gateway" else {}
    named = [
        f"{line} (the gateway has {has[name]})" if name in has else line
        for line, name in ((each, conda_name(each) or "") for each in needs.conda_only)
    ]
    what = _listed(named)
    return _warned(choice, f"Packages that it names for conda aren't installed for it: {what}.")


def _warned(choice: Choice, warning: str) -> Choice:
    return replace(choice, warning=" ".join(filter(None, [choice.warning, warning])))


_FORBIDDEN = "the gateway's, as its tag or the setting has it"


def _named(missing: Sequence[Unmet]) -> str:
    return _listed(list(map(str, missing)))


def _listed(texts: Sequence[str]) -> str:
    first = "; ".join(texts[:_SHOWN])
    more = len(texts) - _SHOWN
    return f"{first}; and {more} more" if more > 0 else first
