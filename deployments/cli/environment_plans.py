"""What versions of a registry are to run in on this machine: for `modelmux environments`.

Reads the registry and chooses the versions that are meant; prints nothing.
"""

from __future__ import annotations

import asyncio
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deployments.environments.choice import Choice, NoEnvironment
from deployments.environments.known_files import KnownFiles
from deployments.environments.planner import Planner
from deployments.settings import Settings
from gateway.catalog import LATEST, EnvironmentMode, ModelVersion
from registry_sync.contract_check import CannotTell
from registry_sync.records import RegisteredModel, RegistryUnreachable
from registry_sync.source import MlflowRegistry, NamePatterns
from registry_sync.tags import is_served, parse_options
from registry_sync.version_files import FilesUnreadable, VersionFiles

_READ_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version, and what a tag says of its packages."""

    model: str
    record: ModelVersion
    tag: EnvironmentMode | None

    def __str__(self) -> str:
        return f"{self.model} version {self.record.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a version is to run in, by the `digest` of that where it is its own, or why it can't."""

    version: Version
    choice: Choice | None = None
    digest: str | None = None
    problem: str | None = None


def read_registry(
    settings: Settings, name: str | None
) -> tuple[MlflowRegistry, Sequence[RegisteredModel]]:
    """What is registered: what a gateway would serve, or one model whatever it is. Raises
    RegistryUnreachable."""
    patterns = NamePatterns(include=settings.include, exclude=settings.exclude)
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri,
        registry_uri=settings.registry_uri,
        patterns=patterns if name is None else NamePatterns(include=[glob.escape(name)]),
    )
    models = registry.read()
    return registry, [each for each in models if name is not None or is_served(each.tags)]


def versions_of(model: RegisteredModel) -> Iterator[Version]:
    """Those that can be served, the newest first."""
    of_model = parse_options(model.tags)[0].environment
    for record in reversed(model.versions):
        if record.is_servable:
            tag = record.environment or of_model
            yield Version(model=model.name, record=record, tag=tag)


def chosen(
    model: RegisteredModel, selector: str | None, every: bool, champion_alias: str
) -> list[Version]:
    """Versions of a model by what was given: one, all, or those that are asked for first. Raises
    CannotTell."""
    servable = {each.record.number: each for each in versions_of(model)}
    if selector is not None:
        number = _number(model, selector)
        if number not in servable:
            raise CannotTell(f"{model.name} has no version {selector} that can be served")
        return [servable[number]]
    if every:
        return list(servable.values())
    default = model.aliases.get(champion_alias, max(servable, default=0))
    return [servable[n] for n in servable if n == default or n in model.aliases.values()]


def _number(model: RegisteredModel, selector: str) -> int:
    if selector.isdecimal():
        return int(selector)
    if selector == LATEST:
        return max((each.number for each in model.versions if each.is_ready), default=0)
    return model.aliases.get(selector, 0)


async def plans_of(
    planner: Planner,
    registry: MlflowRegistry,
    versions: Sequence[Version],
    known_files: KnownFiles,
) -> list[Plan]:
    """What each of the versions is to run in; the registry's store is asked for files that aren't
    known."""
    at_once = asyncio.Semaphore(_READ_AT_ONCE)

    async def plan(version: Version) -> Plan:
        async with at_once:
            return await _planned(planner, registry, version, known_files)

    return await asyncio.gather(*map(plan, versions))


async def _planned(
    planner: Planner, registry: MlflowRegistry, version: Version, known_files: KnownFiles
) -> Plan:
    record = version.record
    files: list[VersionFiles] = []

    def read(path: str) -> bytes | None:
        if not files:
            files.append(registry.files_of(version.model, record.number))
        return files[0].read(path)

    try:
        known = await asyncio.to_thread(known_files.reader, record.fingerprint, read)
        choice = await planner.plan(known, fingerprint=record.fingerprint, tag=version.tag)
    except NoEnvironment as problem:
        return Plan(version=version, problem=problem.reason)
    except (LookupError, RegistryUnreachable, FilesUnreadable) as problem:
        return Plan(version=version, problem=str(problem))
    digest = None if choice.needs is None else planner.builder.digest(choice.needs)
    return Plan(version=version, choice=choice, digest=digest)
