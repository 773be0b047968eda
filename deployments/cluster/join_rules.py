"""Preconditions of joining a Serve that runs already.

Its HTTP options were set when it was started and can't be changed: the gateway listens where that
Serve listens, or not at all. Rules over what `deployments.cluster.join` has read; must not import
ray.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployments.api_key_source import is_loopback
from deployments.application_names import APPLICATION, is_gateways, is_models
from deployments.settings import Settings

_RAY_CLIENT = "ray://"


class CannotJoin(Exception):
    """The cluster isn't there, or can't take the gateway; the sentence is meant for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeApplication:
    """An application on Serve. `import_path` is its builder's, where a Serve config made it; one
    that is ending has no deployments any more."""

    name: str
    deployments: frozenset[str] = frozenset()
    route_prefix: str | None = None
    import_path: str | None = None
    is_ending: bool = False

    @property
    def is_gateways(self) -> bool:
        """See `ownership.is_gateways`."""
        return is_gateways(self.name, self.deployments, import_path=self.import_path)

    @property
    def is_models(self) -> bool:
        """See `ownership.is_models`."""
        return is_models(self.name, self.deployments)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServe:
    """Where Serve listens for HTTP (`host` is None where it doesn't), and what is on it."""

    host: str | None
    port: int
    applications: tuple[ServeApplication, ...] = ()

    @property
    def _staying(self) -> list[ServeApplication]:
        return [each for each in self.applications if not each.is_ending]

    def settings_here(self, settings: Settings) -> Settings:
        """The settings of a gateway that is deployed here: `host` is where Serve listens.

        Raises CannotJoin where Serve listens elsewhere than the settings say, or where the
        gateway's name or route is another application's. Who may come is not judged here.
        """
        self._require_name_and_route()
        if self.host is None:
            raise CannotJoin("Serve on this cluster listens for no HTTP, and can't be changed")
        is_elsewhere = "host" in settings.model_fields_set and not _same(settings.host, self.host)
        if is_elsewhere or settings.port != self.port:
            raise CannotJoin(
                f"Serve on this cluster listens on {self.host}:{self.port} already, and can't be "
                f"moved: give --host {self.host} --port {self.port}, or MODELMUX_HOST and "
                "MODELMUX_PORT"
            )
        return settings.model_copy(update={"host": self.host})

    def require_no_gateway(self, *, owner: str | None) -> None:
        """Raises CannotJoin where a gateway runs here that somebody looks after: `owner`, an `up`
        that lives, or who has the Serve config. One whose `up` has ended is nobody's."""
        found = next((each for each in self._staying if each.is_gateways), None)
        instead = "`modelmux down` takes it away, --take-over puts this one in its place"
        if owner is not None:
            raise CannotJoin(f"a gateway runs on this cluster already, by {owner}: {instead}")
        if found is not None and found.import_path is not None:
            raise CannotJoin(f"a Serve config has a gateway on this cluster already: {instead}")

    def _require_name_and_route(self) -> None:
        for each in self._staying:
            if each.name == APPLICATION and not each.is_gateways:
                raise CannotJoin(
                    f"this cluster has an application called {APPLICATION} that is no gateway of "
                    "ours: it would be replaced"
                )
            if each.route_prefix == "/" and each.name != APPLICATION:
                raise CannotJoin(
                    f"the application {each.name} of this cluster has the route prefix /, which "
                    "the gateway needs"
                )


def require_joinable(address: str) -> None:
    """Refuse Ray Client's addresses, by raising CannotJoin: through it nobody is part of the
    cluster, and Serve's processes and files couldn't be reached."""
    if address.startswith(_RAY_CLIENT):
        raise CannotJoin(
            f"{address} is an address of Ray Client, which modelmux doesn't use: run it on a node "
            "of the cluster, with auto or the head's host:port"
        )


def _same(one: str, other: str) -> bool:
    return one.strip("[]") == other.strip("[]") or (is_loopback(one) and is_loopback(other))
