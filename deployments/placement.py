"""Which Serve application has which models, and what it is made with.

Pure: by the models' tags and the settings, for the sync service that makes applications and the
ingress that calls them. Must not import ray.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployments.application_names import SHARED, application_name
from deployments.settings import Settings
from gateway.catalog import Catalog, DeploymentKind, ModelOptions, ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationPlan:
    """What an application is to be.

    `models` are those that it has, by their names, and `flavors` those of their default versions,
    which its replicas prepare for. `keeps_replica` says whether it is wanted before anybody asks.
    """

    models: tuple[str, ...]
    options: ModelOptions
    keeps_replica: bool = False
    flavors: tuple[str, ...] = ()
    at_once: int = 1
    is_shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Decides by `default`, where no tag does; the shared deployment has `shared_replicas`."""

    default: DeploymentKind = "own"
    shared_replicas: int = 1

    def is_shared(self, model: ServedModel) -> bool:
        """Whether the model is in the shared deployment: never where it needs one of its own."""
        wanted = model.options.deployment or self.default
        return wanted == "shared" and not model.options.of_an_own_deployment

    def application_of(self, model: ServedModel) -> str:
        """The name of the application that has the model."""
        return SHARED if self.is_shared(model) else application_name(model.name)

    def most_replicas(self, model: ServedModel) -> int:
        """How many replicas may have the model's versions."""
        return self.shared_replicas if self.is_shared(model) else model.options.max_replicas

    def plan(self, model: ServedModel) -> ApplicationPlan:
        """The application that has the model, as far as this model goes."""
        return self._shared([model]) if self.is_shared(model) else _own(model)

    def plans(self, catalog: Catalog) -> dict[str, ApplicationPlan]:
        """All applications that there may be, by their names."""
        models = catalog.models.values()
        plans = {
            application_name(model.name): _own(model)
            for model in models
            if not self.is_shared(model)
        }
        shared = [model for model in models if self.is_shared(model)]
        if shared:
            plans[SHARED] = self._shared(shared)
        return plans

    def _shared(self, models: list[ServedModel]) -> ApplicationPlan:
        return ApplicationPlan(
            models=tuple(model.name for model in models),
            options=ModelOptions(
                min_replicas=self.shared_replicas, max_replicas=self.shared_replicas
            ),
            keeps_replica=True,
            flavors=tuple(sorted({flavor for model in models for flavor in _flavors(model)})),
            is_shared=True,
        )


def placement_by(settings: Settings) -> Placement:
    """As it is set."""
    return Placement(default=settings.deployment, shared_replicas=settings.shared_replicas)


OWN = Placement()
"""Each model has a deployment of its own, where no tag says otherwise."""


def _own(model: ServedModel) -> ApplicationPlan:
    return ApplicationPlan(
        models=(model.name,),
        options=model.options,
        keeps_replica=model.default_version is not None and model.options.min_replicas > 0,
        flavors=_flavors(model),
        at_once=1 if model.default is None else model.concurrency_of(model.default),
    )


def _flavors(model: ServedModel) -> tuple[str, ...]:
    default = model.default
    return () if default is None or default.flavor is None else (default.flavor,)
