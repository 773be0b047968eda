"""What a replica's supervisor is told of where versions come from, and of what they may take."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.environments.planner import EnvironmentSettings
from deployments.logs import LogOptions
from deployments.model_replica.memory_budget import Sharing


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Where versions come from and go to, and the environments that they run in; times in seconds.

    `flavors` are what the first versions that are asked for will probably have, `sharing` is for a
    replica that many models share, `spare_worker` whether a process is started ahead for the next
    replica on this machine, `events_to` the deployment and the application that are told
    what is loaded, `zygote` the address of the machine's (see `model_process.zygote`).
    """

    tracking_uri: str
    registry_uri: str
    artifact_folder: str
    max_loaded_versions: int
    environments: EnvironmentSettings
    flavors: tuple[str, ...] = ()
    sharing: Sharing | None = None
    retry_load_after_s: float = 30.0
    load_timeout_s: float = 300.0
    events_to: tuple[str, str] | None = None
    zygote: str | None = None
    spare_worker: bool = False
    logs: LogOptions = field(default_factory=LogOptions)
