"""How a catalog travels to the ingress replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.catalog_updates import (
    CatalogUpdate,
    RegistryNews,
    moment_of,
    packed,
    unpacked,
)
from gateway.catalog import Catalog, EnvironmentStatus, Moment
from registry_sync.catalog_changes import ChangeLog, changes_between
from tests.support.catalogs import BREAKING, catalog, served, version

Contents = Mapping[str, str]  # model name -> description
CONTENTS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["", "one", "two"]))


def _catalog(contents: Contents, generation: int) -> Catalog:
    models = (served(version(1), name=name, description=said) for name, said in contents.items())
    return catalog(*models, generation=generation)


@given(st.lists(CONTENTS, min_size=1, max_size=8), st.data())
def test_who_follows_has_what_there_is(history: list[Contents], data: st.DataObject) -> None:
    """However many generations a reader skips, after an update its catalog is the current one."""
    catalogs = [_catalog(contents, number) for number, contents in enumerate(history)]
    log = ChangeLog(0, length=3)
    read = catalogs[0]
    for before, after in pairwise(catalogs):
        log.add(after.generation, changes_between(before, after))
        if data.draw(st.booleans()):
            names = log.since(read.generation)
            update = packed(after, names, position=("life", after.generation))
            read = asyncio.run(unpacked(update, read))
            assert read == after


async def test_a_new_reader_gets_everything() -> None:
    """Without a catalog of its own a reader is given all models, held versions and all."""
    model = served(version(1), version(2, BREAKING), default=1, aliases={"old": 1})
    now = catalog(model, served(version(1), name="n"), generation=7)
    update = packed(now, None, position=("life", 7))
    assert await unpacked(update, None) == now


async def test_only_what_changed_travels() -> None:
    """One model of many that changed is the only one in the update; what is gone is a name."""
    now = catalog(*(served(version(1), name=name) for name in "abc"), generation=2)
    update = packed(now, {"b", "gone"}, position=("life", 2))
    assert (len(update["models"]), update["removed"]) == (1, ["gone"])


async def test_what_did_not_change_stays_the_same_object() -> None:
    """A reader who is sent everything anew keeps its models, and what others made of them."""
    before = catalog(served(version(1)), served(version(1), name="n"), generation=1)
    now = catalog(served(version(1)), served(version(2), name="n"), generation=1)
    after = await unpacked(packed(now, None, position=("next life", 1)), before)
    assert after.models["m"] is before.models["m"]
    assert after.models["n"] == now.models["n"]


async def test_reading_many_models_lets_others_run() -> None:
    """Between the models of a large update other tasks of the event loop have their turns."""
    now = catalog(*(served(version(1), name=str(number)) for number in range(100)))
    reading = asyncio.create_task(unpacked(packed(now, None, position=("life", 1)), None))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 10


async def test_a_model_of_another_release_is_an_error() -> None:
    """What can't be read is not taken for a model."""
    update = CatalogUpdate(
        position=("life", 1), is_whole=True, compatibility="compatible",
        models=[b'{"name": "m", "of_the_future": 1}'], removed=[],
    )  # fmt: skip
    with pytest.raises(ValidationError):
        await unpacked(update, None)


def test_a_sync_service_of_an_earlier_release_tells_less() -> None:
    """What it doesn't know of is as if there were nothing."""
    before = RegistryNews(update=None, silent_for_s=None, problem=None, snapshot_problem=None)
    assert moment_of(before, before=Moment()) == Moment()
    now: RegistryNews = {**before, "load_problems": {"m": {1: "ImportError"}}}
    assert moment_of(now, before=Moment()) == Moment(load_problems={"m": {1: "ImportError"}})


def test_environments_are_as_they_were_where_nothing_is_told_of_them() -> None:
    """They are told only where they are others."""
    known = EnvironmentStatus(kind="own", state="building", why="its own", since=1.0)
    silent = RegistryNews(update=None, silent_for_s=None, problem=None, snapshot_problem=None)
    told: RegistryNews = {**silent, "environments": {"m": {1: known.model_dump()}}}
    then = moment_of(told, before=Moment())
    assert then == Moment(environments={"m": {1: known}})
    assert moment_of(silent, before=then) == then
    gone: RegistryNews = {**silent, "environments": {}}
    assert moment_of(gone, before=then) == Moment()
