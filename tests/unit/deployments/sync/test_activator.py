"""Applications of models: made on demand, kept in line, put to sleep; a state each."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from deployments.application_names import SHARED, application_name
from deployments.backoff import Backoff
from deployments.placement import OWN, ApplicationPlan, Placement
from deployments.serve.ports import ApplicationStatus
from deployments.sync.activator import HANDED_OVER_S, Activator
from deployments.sync.application_state import IDLE_AFTER_S
from deployments.sync.reconciler import SLOW_AFTER_S, ActivationFailed
from gateway.catalog import Catalog, ModelOptions, ServedModel
from gateway.metrics.families import MODEL_DEPLOYMENTS
from tests.support.catalogs import catalog, served, version
from tests.support.clocks import Clock
from tests.support.fake_serve import FakeServe, until

AT_ONCE = Backoff(least_s=0.0, most_s=0.0)
NEVER = Backoff(least_s=3600.0, most_s=3600.0)


def model(name: str, **options: Any) -> ServedModel:
    return served(version(1), name=name, options=ModelOptions(**options))


class Bench:
    """An activator over a Serve without Ray; its clock moves while it waits."""

    def __init__(
        self,
        *,
        room_for: int | None = None,
        pauses: Backoff = AT_ONCE,
        placement: Placement = OWN,
    ) -> None:
        self.serve = FakeServe()
        self.clock = Clock()
        self.pauses = pauses
        self.room_for = room_for
        self.placement = placement
        self.loaded_anew: list[str] = []
        self.cannot_move: str | None = None
        self.activator = self.restarted()

    def restarted(self) -> Activator:
        """Another activator over the same Serve."""
        self.activator = Activator(
            self.serve,
            lambda wanted: wanted,
            placement=self.placement,
            load_anew=self._load_anew,
            max_active_models=self.room_for,
            pauses=self.pauses,
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        return self.activator

    async def _load_anew(self, moved: ServedModel) -> None:
        if self.cannot_move is not None:
            raise ActivationFailed(self.cannot_move)
        self.loaded_anew.append(moved.name)

    def status(self, name: str) -> ApplicationStatus:
        return self.serve.statuses.get(application_name(name), ApplicationStatus.NOT_STARTED)

    def is_up(self, name: str) -> bool:
        return self.status(name) is ApplicationStatus.RUNNING

    def is_gone(self, name: str) -> bool:
        return self.status(name) is ApplicationStatus.NOT_STARTED

    def runs_with(self, name: str) -> ModelOptions:
        built: ApplicationPlan = self.serve.built[application_name(name)]
        return built.options

    def retain(self, *models: ServedModel) -> Catalog:
        wanted = catalog(*models)
        self.activator.retain(wanted)
        return wanted


@pytest.mark.parametrize("seed", range(20))
async def test_who_leaves_stops_the_start_for_nobody(seed: int) -> None:
    """Callers ask for a sleeping model and leave at random moments, the first one always: it is
    deployed once, and all who stayed hear that it is up."""
    bench, random, wanted = Bench(), Random(seed), model("m")
    callers = []
    for number in range(8):
        callers.append(asyncio.create_task(bench.activator.activate(wanted)))
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        if number == 0 or random.random() < 0.5:
            random.choice(callers).cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert {each for each in answers if isinstance(each, str)} <= {application_name("m")}
    assert {type(each) for each in answers} <= {str, asyncio.CancelledError}
    await until(lambda: bench.activator.is_active(wanted))
    assert bench.serve.done == [("run", application_name("m"))]


async def test_what_cannot_be_started_is_deleted_and_told() -> None:
    """Serve can't start it, or has no room until the deadline: the reason comes, nothing stays,
    and the next request tries anew."""
    bench = Bench()
    bench.serve.cannot_run = lambda built: built.models == ("broken",)
    bench.serve.no_room_for = lambda built: built.models == ("large",)
    for name, reason in (
        ("broken", "Its processes can't be started."),
        ("large", "There is no room to start its processes."),
    ):
        with pytest.raises(ActivationFailed) as failed:
            await bench.activator.activate(model(name))
        assert failed.value.reason == reason
        assert bench.is_gone(name)
        assert not bench.activator.is_active(model(name))
    bench.serve.cannot_run = lambda built: False
    await bench.activator.activate(model("broken"))
    assert bench.is_up("broken")


async def test_what_somebody_else_deleted_is_made_again() -> None:
    """Serve's own state is the truth, not what was known before."""
    bench = Bench()
    await bench.activator.activate(model("m"))
    del bench.serve.statuses[application_name("m")]
    await bench.activator.activate(model("m"))
    assert bench.is_up("m")


async def test_what_is_gone_from_the_catalog_is_deleted() -> None:
    """Whether it runs or is being started; who waits for the start is told."""
    bench = Bench()
    await bench.activator.activate(model("running"))
    bench.serve.no_room_for = lambda built: True
    waiting = asyncio.create_task(bench.activator.activate(model("starting")))
    await until(lambda: bench.status("starting") is ApplicationStatus.DEPLOYING)
    bench.retain()
    with pytest.raises(ActivationFailed, match="wanted any more"):
        await waiting
    await until(lambda: bench.is_gone("running") and bench.is_gone("starting"))


async def test_what_is_awake_is_in_the_metrics() -> None:
    """What runs and what is being started, by their models; what sleeps isn't there."""
    bench = Bench()
    bench.retain(model("up"), model("coming"), model("asleep"))
    await bench.activator.activate(model("up"))
    bench.serve.no_room_for = lambda built: True
    coming = asyncio.create_task(bench.activator.activate(model("coming")))
    await until(lambda: bench.status("coming") is ApplicationStatus.DEPLOYING)
    told = bench.activator.reading()[MODEL_DEPLOYMENTS.name]
    assert sorted(told) == [(("coming", "starting"), 1), (("up", "running"), 1)]
    coming.cancel()
    bench.retain()


async def test_a_replica_that_is_wanted_always_is_there_unasked() -> None:
    """And goes on being wanted: one that was deleted by somebody comes back at the next request."""
    bench = Bench()
    bench.retain(model("always", min_replicas=1), model("on-demand"))
    await until(lambda: bench.is_up("always"))
    assert bench.is_gone("on-demand")


async def test_a_start_for_a_tag_that_is_gone_is_given_up() -> None:
    """Nobody asked for it, so nobody needs it any more."""
    bench = Bench()
    bench.serve.no_room_for = lambda built: True
    bench.retain(model("m", min_replicas=1))
    await until(lambda: bench.status("m") is ApplicationStatus.DEPLOYING)
    bench.retain(model("m"))
    await until(lambda: bench.is_gone("m"))


async def test_new_options_are_followed() -> None:
    """Those of the placement by a new deployment; those that the gateway reads by none."""
    bench = Bench()
    bench.retain(model("m"))
    await bench.activator.activate(model("m"))
    bench.retain(model("m", timeout_s=7.0))
    await asyncio.sleep(0)
    assert len(bench.serve.done) == 1
    bench.retain(model("m", max_replicas=3))
    await until(lambda: bench.runs_with("m").max_replicas == 3 and bench.is_up("m"))
    assert bench.serve.done == [("run", application_name("m"))] * 2


async def test_options_that_cannot_be_had_are_taken_back() -> None:
    """A tag never takes down what was answering: it runs as before, and people are told why."""
    bench = Bench()
    bench.retain(model("m"))
    await bench.activator.activate(model("m"))
    bench.serve.no_room_for = lambda built: built.options.num_gpus > 0
    bench.retain(model("m", num_gpus=4))
    await until(lambda: bench.activator.warnings)
    await until(lambda: bench.is_up("m"))
    assert bench.runs_with("m").num_gpus == 0
    (told,) = bench.activator.warnings["m"]
    assert "Its new tags can't be followed" in told
    bench.retain(model("m"))
    await until(lambda: not bench.activator.warnings)


async def test_what_cannot_be_placed_holds_up_no_other() -> None:
    """One that waits for room is tried again and again; others are up meanwhile."""
    bench = Bench(pauses=NEVER)
    bench.serve.no_room_for = lambda built: built.models == ("large",)
    bench.retain(model("large", min_replicas=1), model("small", min_replicas=1))
    await until(lambda: bench.is_up("small"))
    await until(lambda: bench.activator.not_started)
    assert set(bench.activator.not_started) == {"large"}
    assert not bench.activator.warnings


async def test_a_first_request_that_waits_for_room_is_told_beside_its_model() -> None:
    """Not at once, since a start takes a moment; and not only when it has been given up."""
    bench = Bench()
    bench.serve.no_room_for = lambda built: True
    bench.retain(model("m"))
    told: dict[float, dict[str, str]] = {}
    sleep = bench.clock.sleep

    async def sleeping(pause_s: float) -> None:
        told[bench.clock()] = bench.activator.not_started
        await sleep(pause_s)

    bench.activator._sleep = sleeping
    began = bench.clock()
    with pytest.raises(ActivationFailed):
        await bench.activator.activate(model("m"))
    assert not any(reasons for at, reasons in told.items() if at < began + SLOW_AFTER_S)
    assert all(
        reasons == {"m": "It takes long to start its processes."}
        for at, reasons in told.items()
        if at >= began + SLOW_AFTER_S
    )
    assert max(told) > began + SLOW_AFTER_S
    assert bench.activator.not_started == {"m": "There is no room to start its processes."}


async def test_why_a_model_did_not_start_is_told_until_it_does() -> None:
    """Of a placement that is another by now nothing is known."""
    bench = Bench()
    bench.serve.cannot_run = lambda built: True
    bench.retain(model("m", num_gpus=64.0))
    with pytest.raises(ActivationFailed):
        await bench.activator.activate(model("m", num_gpus=64.0))
    assert set(bench.activator.not_started) == {"m"}
    bench.retain(model("m", num_gpus=0.0))
    assert not bench.activator.not_started
    bench.retain(model("m", num_gpus=64.0))
    assert set(bench.activator.not_started) == {"m"}
    bench.serve.cannot_run = lambda built: False
    await bench.activator.activate(model("m", num_gpus=64.0))
    assert not bench.activator.not_started


async def test_one_more_than_may_be_active_puts_the_idle_to_sleep() -> None:
    """The one that was idle for the longest time; where none is, the newcomer is refused."""
    bench = Bench(room_for=2)
    for name in ("first", "second"):
        await bench.activator.activate(model(name))
        bench.clock.now += 1
    bench.retain(model("first"), model("second"), model("third"))
    with pytest.raises(ActivationFailed, match="none is idle"):
        await bench.activator.activate(model("third"))
    bench.clock.now += IDLE_AFTER_S
    bench.activator.note_use(["first"])
    await bench.activator.activate(model("third"))
    assert (bench.is_up("first"), bench.is_gone("second"), bench.is_up("third")) == (True,) * 3


async def test_one_that_is_put_to_sleep_wakes_when_it_is_gone() -> None:
    """Asked for in the very moment in which Serve deletes it: it is deployed after that, not under
    the deletion's feet."""
    bench = Bench(room_for=1)
    await bench.activator.activate(model("old"))
    bench.clock.now += IDLE_AFTER_S + 1
    bench.serve.may_delete.clear()
    newcomer = asyncio.create_task(bench.activator.activate(model("new")))
    await until(lambda: ("delete", application_name("old")) in bench.serve.done)
    again = asyncio.create_task(bench.activator.activate(model("old")))
    for _ in range(20):
        await asyncio.sleep(0)
    bench.serve.may_delete.set()
    await newcomer
    with pytest.raises(ActivationFailed, match="none is idle"):
        await again
    assert not bench.serve.overlaps


async def test_a_restart_adopts_what_runs() -> None:
    """Nothing is deployed again; what isn't in the catalog any more is deleted, an application of
    one version (of an earlier release) too, and nobody else's is touched."""
    bench = Bench()
    for name in ("kept", "gone"):
        await bench.activator.activate(model(name))
    of_a_version = application_name("kept") + "-v2-0123abcd"
    for name, deployment in ((of_a_version, "ModelHost"), ("theirs", "Theirs")):
        bench.serve.statuses[name] = ApplicationStatus.RUNNING
        bench.serve.deployments[name] = (deployment,)
    bench.serve.done.clear()
    await bench.restarted().adopt()
    assert bench.activator.is_active(model("kept"))
    await bench.activator.activate(model("kept"))
    bench.retain(model("kept"))
    await until(lambda: bench.is_gone("gone") and of_a_version not in bench.serve.statuses)
    assert {what for what, _ in bench.serve.done} == {"delete"}
    assert (bench.is_up("kept"), "theirs" in bench.serve.statuses) == (True, True)


async def test_a_serve_that_fails_is_asked_again() -> None:
    """Its controller may be restarting: what is wanted comes up by itself once it is back."""
    bench = Bench()
    bench.serve.is_broken = True
    bench.retain(model("m", min_replicas=1))
    await until(lambda: bench.activator.not_started)
    bench.serve.is_broken = False
    await until(lambda: bench.is_up("m"))
    await until(lambda: not bench.activator.not_started)


ALL_SHARED = Placement(default="shared", shared_replicas=2)


async def test_models_share_an_application_that_is_there_unasked() -> None:
    """One for all of them, with as many replicas as are set; it never sleeps, counts for no model,
    and goes with the last one in it."""
    bench = Bench(placement=ALL_SHARED, room_for=1)
    bench.retain(model("a"), model("b"), model("alone", num_cpus=1.0))
    await until(lambda: bench.activator.is_active(model("a")))
    assert bench.serve.done == [("run", SHARED)]
    assert bench.serve.built[SHARED].options.max_replicas == 2
    for name in ("a", "b"):
        assert await bench.activator.activate(model(name)) == SHARED
    assert await bench.activator.activate(model("alone", num_cpus=1.0)) == application_name("alone")
    bench.clock.now += IDLE_AFTER_S + 1
    bench.activator.note_use(["alone"])
    with pytest.raises(ActivationFailed, match="none is idle"):
        await bench.activator.activate(model("another", num_cpus=1.0))
    left_at = bench.clock.now
    bench.retain(model("alone", num_cpus=1.0))
    await until(lambda: SHARED not in bench.serve.statuses)
    assert bench.clock.now >= left_at + HANDED_OVER_S


async def test_a_shared_application_that_does_not_start_is_told_for_each_model() -> None:
    """So that people see it where they look."""
    bench = Bench(placement=ALL_SHARED)
    bench.serve.cannot_run = lambda built: True
    bench.retain(model("a"), model("b"))
    await until(lambda: bench.activator.not_started)
    assert bench.activator.not_started.keys() == {"a", "b"}


async def test_an_application_goes_once_another_has_its_model() -> None:
    """The tag moves a model: what answered stays until the model is loaded elsewhere, and for as
    long after that as ingress replicas take to follow."""
    bench = Bench()
    bench.retain(model("m"))
    await bench.activator.activate(model("m"))
    bench.cannot_move = "It can't be loaded there."
    bench.retain(model("m", deployment="shared"))
    await until(lambda: bench.activator.warnings)
    assert bench.activator.warnings["m"][0].startswith("It can't be loaded there.")
    assert bench.is_up("m")
    bench.cannot_move, moved_at = None, bench.clock.now
    await until(lambda: bench.is_gone("m"))
    assert bench.loaded_anew == ["m"]
    assert bench.clock.now >= moved_at + HANDED_OVER_S
    await until(lambda: bench.activator.is_active(model("m", deployment="shared")))


async def test_a_model_that_moves_back_keeps_its_application() -> None:
    """The tag was taken back before the other could answer."""
    bench = Bench(pauses=NEVER)
    bench.retain(model("m"))
    await bench.activator.activate(model("m"))
    bench.cannot_move = "Not yet."
    bench.retain(model("m", deployment="shared"))
    await until(lambda: bench.activator.warnings)
    bench.retain(model("m"))
    await until(lambda: not bench.activator.warnings)
    assert ("delete", application_name("m")) not in bench.serve.done


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_comes_it_ends_as_it_is_wanted(seed: int) -> None:
    """Requests, callers who leave, catalogs, tags and deletions by others in a random order: no two
    changes of one application go on at once, no more are active than may be, and in the end there
    is what the last catalog wants, and none else."""
    random, bench = Random(seed), Bench(room_for=3)
    names = ["a", "b", "c", "d"]
    callers: list[asyncio.Task[str]] = []

    def drawn() -> list[ServedModel]:
        return [
            model(
                name,
                min_replicas=random.choice([0, 0, 0, 1]) if name == "a" else 0,
                max_replicas=random.choice([1, 2]),
            )
            for name in names
            if random.random() < 0.8
        ]

    models = drawn()
    for _ in range(60):
        step = random.randrange(5)
        if step == 0:
            models = drawn()
            bench.retain(*models)
        elif step == 1 and callers:
            random.choice(callers).cancel()
        elif step == 2 and bench.serve.statuses:
            bench.clock.now += random.choice([1, IDLE_AFTER_S + 1])
        elif models:
            callers.append(asyncio.create_task(bench.activator.activate(random.choice(models))))
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)
        assert len(bench.serve.statuses) <= 3
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(each) for each in answers} <= {str, asyncio.CancelledError, ActivationFailed}
    bench.retain()
    await until(lambda: not bench.serve.statuses)
    bench.clock.now += IDLE_AFTER_S + 1
    bench.retain(model("a", min_replicas=1, max_replicas=2))
    await until(lambda: bench.is_up("a"))
    assert list(bench.serve.statuses) == [application_name("a")]
    assert not bench.serve.overlaps
