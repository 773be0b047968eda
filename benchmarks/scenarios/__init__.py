"""What is measured of modelmux alone, after the contenders."""

from __future__ import annotations

from benchmarks.scenarios.canary import CanaryRouting
from benchmarks.scenarios.capture import CapturedRequests
from benchmarks.scenarios.cold_version import ColdVersion
from benchmarks.scenarios.default_switch import DefaultSwitch
from benchmarks.scenarios.environment_build import EnvironmentBuild
from benchmarks.scenarios.finding import Scenario
from benchmarks.scenarios.first_request import FirstRequest
from benchmarks.scenarios.idle_models import IdleModels
from benchmarks.scenarios.protocols import Protocols
from benchmarks.scenarios.shadow import ShadowOfAll
from benchmarks.scenarios.shared_deployment import SharedDeployment
from benchmarks.scenarios.transformer_batching import TransformerBatching
from benchmarks.scenarios.version_processes import VersionProcesses

SCENARIOS: tuple[Scenario, ...] = (
    TransformerBatching(),
    ColdVersion(),
    DefaultSwitch(),
    FirstRequest(),
    IdleModels(),
    VersionProcesses(),
    SharedDeployment(),
    EnvironmentBuild(),
    ShadowOfAll(faults=False),
    ShadowOfAll(faults=True),
    CanaryRouting(),
    CapturedRequests(),
    Protocols(),
)
