"""Creating and deleting the Serve applications of models: one for each, and one that models share.

They are made on the first request, or at once where `modelmux.min_replicas` asks for it, as for the
shared one. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from deployments.application_names import SHARED, application_name, is_models
from deployments.backoff import Backoff
from deployments.placement import OWN, ApplicationPlan, Placement
from deployments.serve.ports import ApplicationStatus, ServeApplications
from deployments.sync.application_state import Application, State, longest_idle, placement
from deployments.sync.reconciler import PAUSES, ActivationFailed, Adjustment, TakenBack
from gateway.catalog import Catalog, ModelOptions, ServedModel
from gateway.metrics.families import MODEL_DEPLOYMENTS, Reading
from gateway.single_flight import SingleFlight

_logger = logging.getLogger(__name__)

# Most applications are up after a second or two; one that can't be placed is asked for minutes.
_FIRST_POLL_S, _POLL_GROWTH, _LONGEST_POLL_S = 0.05, 1.1, 0.5

HANDED_OVER_S = 15.0
"""How long an application stays once another can answer for its model: ingress replicas hear of it
with their next long poll, load what they are asked for there, and leave."""

_NOT_FOLLOWED = "Its new tags can't be followed, so it runs by those before."

_RESTORED = frozenset({ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING})


class _Outdated(Exception):
    """Something else is wanted of an application by now than what it was deployed with."""


async def _nothing_to_load(model: ServedModel) -> None:
    return


class Activator:
    """Makes applications, each change of one alone, and knows which are there.

    Serve's own state is the truth: a sync service that restarts adopts what is running. `build`
    makes of a plan what Serve deploys. `load_anew` has a model loaded where it is to be from now
    on, and raises ActivationFailed. `clock` and `sleep` are in seconds.
    """

    def __init__(
        self,
        serve: ServeApplications,
        build: Callable[[ApplicationPlan], Any],
        *,
        placement: Placement = OWN,
        load_anew: Callable[[ServedModel], Awaitable[None]] = _nothing_to_load,
        max_active_models: int | None = None,
        start_timeout_s: float = 120.0,
        pauses: Backoff = PAUSES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._serve = serve
        self._build = build
        self._placement = placement
        self._load_anew = load_anew
        self._max_active_models = max_active_models
        self._start_timeout_s = start_timeout_s
        self._pauses = pauses
        self._clock = clock
        self._sleep = sleep
        self._applications: dict[str, Application] = {}
        self._starts: SingleFlight[str, None] = SingleFlight()
        self._making_room = asyncio.Lock()

    async def adopt(self) -> None:
        """Take over the applications that an earlier sync service made."""
        for name, seen in (await self._serve.list()).items():
            if seen.status in _RESTORED and is_models(name, seen.deployments):
                adopted = self._application(name)
                adopted.run_with(None)
                adopted.used_at = self._clock()

    def is_active(self, model: ServedModel) -> bool:
        """Whether the application that has the model is there."""
        known = self._applications.get(self._placement.application_of(model))
        return known is not None and known.is_running

    async def activate(self, model: ServedModel) -> str:
        """Have the application that has the model running; its name. Raises ActivationFailed.

        A start that is going on is everybody's, and a caller who leaves stops it for nobody.
        """
        application = self._application(self._placement.application_of(model))
        if not await self._is_there(application):
            application.is_asked_for = True
            if application.state is State.ASLEEP and not application.is_shared:
                application.wanted = self._placement.plan(model)
            await self._started(application)
        return application.name

    def note_use(self, models: Iterable[str]) -> None:
        """Models of these names are in use now."""
        for name in map(application_name, models):
            if name in self._applications:
                self._applications[name].used_at = self._clock()

    def reading(self) -> Reading:
        """Which models have a deployment of their own that is starting or running."""
        states = {State.STARTING: "starting", State.RUNNING: "running"}
        return {
            MODEL_DEPLOYMENTS.name: [
                ((model, states[each.state]), 1)
                for each in self._applications.values()
                if each.state in states and each.name != SHARED
                for model in each.models
            ]
        }

    @property
    def warnings(self) -> dict[str, list[str]]:
        """What keeps applications that run from being as they should, by their models' names."""
        return {
            name: [problem]
            for each in self._applications.values()
            if each.is_running and (problem := each.adjustment.problem) is not None
            for name in each.models
        }

    @property
    def not_started(self) -> dict[str, str]:
        """Why models don't run of which something should, or should have, by their names."""
        now = self._clock()
        return {
            name: reason
            for each in self._applications.values()
            if (reason := each.why_not_started(now)) is not None
            for name in each.models
        }

    def retain(self, catalog: Catalog) -> None:
        """Have the applications deleted of what the catalog has no more, those adjusted whose
        options changed, and those made that want a replica without being asked.

        Each is a task of its own, and nobody waits for them.
        """
        wanted = self._placement.plans(catalog)
        elsewhere = {
            application_name(model.name): model
            for model in catalog.models.values()
            if self._placement.is_shared(model)
        }
        for name in wanted.keys() | self._applications.keys():
            application = self._application(name)
            application.wanted, application.moved = wanted.get(name), elsewhere.get(name)
            if not application.is_in_line or application.adjustment.is_going_on:
                application.adjustment.see_to(application.situation)
            elif application.is_forgettable:
                del self._applications[name]

    def _application(self, name: str) -> Application:
        found = self._applications.get(name)
        if found is None:
            adjustment = Adjustment(
                name, lambda: self._adjust(made), pauses=self._pauses, clock=self._clock
            )
            found = made = self._applications[name] = Application(name=name, adjustment=adjustment)
        return found

    async def _is_there(self, application: Application) -> bool:
        """Whether it runs, also by what Serve says: somebody else may have deleted it."""
        if not application.is_running:
            return False
        status = await self._serve.status(application.name)
        if status is ApplicationStatus.NOT_STARTED and application.is_running:
            application.sleep()
        return application.is_running

    async def _adjust(self, application: Application) -> None:
        """Bring one application in line with what is wanted; raises ActivationFailed."""
        if not application.is_running:
            if application.keeps_replica:
                await self._started(application)
            return
        if application.wanted is None:
            await self._hand_over(application)
        async with application.changing:
            wanted, options = application.wanted, application.options
            if not application.is_running:
                return  # it was put to sleep meanwhile
            if wanted is None:
                await self._delete(application)
            # An adopted one is left as it is until its options change.
            elif options is None or placement(options) == placement(wanted.options):
                application.run_with(wanted.options)
            else:
                await self._redeploy(application, options)

    async def _hand_over(self, application: Application) -> None:
        """What its callers have by now is another application's: wait until that can answer, and
        until they have followed. Raises ActivationFailed."""
        if application.moved is not None:
            await self._load_anew(application.moved)
        if application.moved is not None or application.name == SHARED:
            await self._sleep(HANDED_OVER_S)

    async def _redeploy(self, application: Application, before: ModelOptions) -> None:
        """Change a running application; what can't be placed is taken back, so that a tag never
        takes down what was answering."""
        try:
            application.run_with(await self._deploy_as_wanted(application))
        except ActivationFailed as failed:
            wanted = application.wanted
            if wanted is None:
                return  # it is gone from the catalog meanwhile: the next adjustment deletes it
            await self._deploy(application.name, replace(wanted, options=before))
            raise TakenBack(f"{_NOT_FOLLOWED} {failed.reason}") from failed

    async def _started(self, application: Application) -> None:
        await self._starts.run(application.name, partial(self._start, application))

    async def _start(self, application: Application) -> None:
        """From ASLEEP to RUNNING, or back; raises ActivationFailed."""
        async with application.changing:
            try:
                await self._make_room(application)
                application.run_with(await self._deploy_as_wanted(application))
            except ActivationFailed as failed:
                application.fail_to_start(failed.reason)
                if application.state is State.STARTING:
                    await self._delete_from_serve(application.name)
                raise
            finally:
                application.is_asked_for = False
                if application.state is State.STARTING:
                    application.sleep()

    async def _make_room(self, application: Application) -> None:
        """Have room for one more application, if need be by putting the one to sleep that is idle
        for the longest time; raises ActivationFailed."""
        async with self._making_room:
            while not self._has_room(application):
                idle = longest_idle(self._applications.values(), self._clock())
                if idle is None:
                    raise ActivationFailed("There is no room for one more model: none is idle.")
                async with idle.changing:
                    _logger.info("application %s makes room for %s", idle.name, application.name)
                    await self._delete(idle)
            application.begin(self._clock())

    def _has_room(self, application: Application) -> bool:
        most = self._max_active_models
        awake = sum(
            each.state is not State.ASLEEP and each.name != SHARED
            for each in self._applications.values()
        )
        return most is None or awake < most or application.name == SHARED

    async def _deploy_as_wanted(self, application: Application) -> ModelOptions:
        """Deploy the application as it is wanted, and again where that changes meanwhile; the
        options that it runs with. Raises ActivationFailed."""
        while (wanted := application.to_deploy) is not None:
            try:
                await self._deploy(
                    application.name, wanted, partial(application.still_wants, wanted)
                )
            except _Outdated:
                continue
            return wanted.options
        raise ActivationFailed("It isn't wanted any more.")

    async def _deploy(
        self, name: str, plan: ApplicationPlan, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Have Serve run it; raises ActivationFailed, and _Outdated where something else is wanted
        before it runs."""
        started = self._clock()
        await self._serve.run(name, partial(self._build, plan))
        pause_s = _FIRST_POLL_S
        while (spent_s := self._clock() - started) < self._start_timeout_s:
            status = await self._serve.status(name)
            if status is ApplicationStatus.RUNNING:
                _logger.info("application %s is up after %.2f s", name, spent_s)
                return
            if not is_wanted():
                raise _Outdated
            if status is ApplicationStatus.DEPLOY_FAILED:
                raise ActivationFailed("Its processes can't be started.")
            await self._sleep(pause_s)
            pause_s = min(_LONGEST_POLL_S, pause_s * _POLL_GROWTH)
        raise ActivationFailed("There is no room to start its processes.")

    async def _delete(self, application: Application) -> None:
        application.sleep()
        await self._delete_from_serve(application.name)

    async def _delete_from_serve(self, name: str) -> None:
        try:
            await self._serve.delete(name)
        except TimeoutError:
            _logger.warning("application %s takes long to end", name)
        else:
            _logger.info("application %s is gone", name)
