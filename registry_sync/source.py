"""The registry as it is now: the only client of MLflow's registry.

Owns paging and the reading of MLmodel files (once per version, side by side); whatever MLflow may
raise is `RegistryUnreachable` (by `registry_sync.problems`) or a version's `problem`. What it reads
is in `registry_sync.records`; what it means is decided elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.entities.model_registry import RegisteredModel as MlflowModel
from mlflow.exceptions import MlflowException

from gateway.catalog import UNSIGNED, UNTYPED_SIGNATURE, ModelVersion
from registry_sync.example_signature import inferred_signature
from registry_sync.mlmodel import ModelFacts, read_example, read_mlmodel
from registry_sync.problems import no_mlflow, registry_problem, require_driver, require_there
from registry_sync.records import (
    RegisteredModel,
    RegistryReading,
    RegistryUnreachable,
    RegistryUnusable,
)
from registry_sync.tags import accepts_breaking, environment_mode, is_untyped, version_warnings
from registry_sync.uris import is_database_server, is_web
from registry_sync.version_files import ArtifactStores, FilesUnreadable, VersionFiles

_logger = logging.getLogger(__name__)

READ_AS = 1
"""To be raised when more is read of an MLmodel file than before: what a snapshot has of an earlier
release is read again then."""

_PAGE = 1000
_READERS = 8
_NOBODYS = "modelmux asks whether this is MLflow"
_RETRY_UNREADABLE_AFTER_S = 60.0
_LOOKED_AT_AGAIN = 64

# What servers say of versions that nobody gave a stage; recent ones say nothing.
_NO_STAGES = (None, "", "None")

# What a registry that is down, misconfigured or half-way through an answer makes MLflow raise.
_REGISTRY_FAILURES = (MlflowException, OSError, ValueError, KeyError, ImportError)
_UNREADABLE = (*_REGISTRY_FAILURES, FilesUnreadable)


class RegistrySource(Protocol):
    """Whatever can tell what is registered."""

    def read(self) -> RegistryReading:
        """All registered models; blocks; raises RegistryUnreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamePatterns:
    """Which model names are read: glob patterns as in `fnmatch`; exclude wins over include."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def admit(self, name: str) -> bool:
        """Whether a model of that name is wanted."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)


@dataclass(slots=True)
class _Unreadable:
    facts: ModelFacts
    since: float = field(default_factory=time.monotonic)

    @property
    def is_recent(self) -> bool:
        return time.monotonic() - self.since < _RETRY_UNREADABLE_AFTER_S


class MlflowRegistry:
    """Reads an MLflow registry; keeps what can't change, so a quiet registry costs two searches.

    Not for use by several threads at once.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        registry_uri: str | None = None,
        patterns: NamePatterns | None = None,
        known: Iterable[ModelVersion] = (),
    ) -> None:
        self._tracking_uri = tracking_uri
        self._registry_uri = registry_uri or tracking_uri
        self._patterns = patterns or NamePatterns()
        self._client: MlflowClient | None = None
        # Artifacts of a version never change: its facts are read once and kept by fingerprint.
        self._known: dict[str, ModelVersion] = {
            version.registered_as: version for version in known if version.problem is None
        }
        self._unreadable: dict[str, _Unreadable] = {}
        self._looked_at: dict[str, float] = {}
        self._stores = ArtifactStores(tracking_uri=tracking_uri, registry_uri=self._registry_uri)

    def read(self) -> RegistryReading:
        """All registered models with their versions, ascending; raises RegistryUnreachable.

        Aliases are taken from the registered models, because a search of versions shows none.
        """
        try:
            models = [m for m in self._search_models() if self._patterns.admit(m.name)]
            versions = self._versions_by_model({m.name: m.tags or {} for m in models})
        except _REGISTRY_FAILURES as error:
            raise self._problem(error) from error
        return tuple(_registered_model(model, versions.get(model.name, ())) for model in models)

    def read_version(self, name: str, number: int) -> ModelVersion:
        """One version with its facts; raises RegistryUnreachable, LookupError if unknown."""
        with self._answers_about(_no_version(name, number)):
            record = self._connected().get_model_version(name, str(number))
            if self._must_read(record):
                self._read_artifacts(record)
            tags: Mapping[str, str] = {}
            if (known := self._known.get(_fingerprint(record))) is not None and known.unsigned:
                tags = self._connected().get_registered_model(name).tags or {}
            return self._with_facts(record, tags)

    def read_model(self, name: str) -> RegisteredModel:
        """One model without its versions; raises RegistryUnreachable, LookupError if unknown."""
        with self._answers_about(_no_model(name)):
            return _registered_model(self._connected().get_registered_model(name), ())

    def ready_versions(self, name: str) -> list[int]:
        """The numbers of a model's READY versions; raises RegistryUnreachable."""
        with self._answers_about(_no_model(name)):
            found = self._connected().search_model_versions(_named(name))
            return [int(record.version) for record in found if record.status == "READY"]

    def files_of(self, name: str, number: int) -> VersionFiles:
        """A version's files, for one thread; raises RegistryUnreachable, FilesUnreadable,
        LookupError if unknown."""
        with self._answers_about(_no_version(name, number)):
            return self._files(name, str(number))

    def require_usable(self) -> None:
        """Raises RegistryUnusable where a registry at that address can't be read by what is
        installed and set here; asks no server."""
        try:
            with self._answers():
                if is_database_server(self._registry_uri):
                    require_driver(self._registry_uri)
                else:
                    self._connected()._get_registry_client()  # type: ignore[no-untyped-call]
        except RegistryUnusable:
            raise
        except RegistryUnreachable as passing:
            _logger.debug("the registry can't be read yet", exc_info=passing)

    def _problem(self, error: Exception) -> RegistryUnreachable:
        _logger.debug("the registry gave no usable answer", exc_info=error)
        return registry_problem(error, self._registry_uri)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except RegistryUnreachable:
            raise
        # The boundary to MLflow's stores: each raises what its own library does.
        except Exception as error:
            raise self._problem(error) from error

    @contextmanager
    def _answers_about(self, missing: str) -> Iterator[None]:
        """As `_answers`, and LookupError with the sentence where there is no such thing."""
        try:
            yield
        except _REGISTRY_FAILURES as error:
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                raise LookupError(missing) from error
            raise self._problem(error) from error

    def _connected(self) -> MlflowClient:
        # Not in the constructor: MLflow resolves the store there, which may fail.
        if self._client is None:
            require_there(self._registry_uri)
            self._client = MlflowClient(self._tracking_uri, self._registry_uri)
        return self._client

    def _search_models(self) -> list[MlflowModel]:
        """All but prompts, which recent servers keep among the models and leave out by themselves.

        Not by the client's own method, which asks for those whose tag of prompts isn't `true`: a
        server before 2.21 knows no prompts and gives nothing then, without a word.
        """
        with self._answers():
            registry = self._connected()._get_registry_client()  # type: ignore[no-untyped-call]
            found = list(_all_pages(registry.store.search_registered_models))
            if not found and is_web(self._registry_uri):
                self._require_mlflow(registry.store)
        return [model for model in found if not model._is_prompt()]

    def _require_mlflow(self, store: Any) -> None:
        """Raises RegistryUnreachable where there are no models because it is no MLflow server that
        answers: an empty registry is `{}`, and so is much that others say. Of a model that can't be
        there MLflow alone says that it doesn't exist, or mustn't be seen."""
        try:
            store.get_registered_model(_NOBODYS)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"):
                return
            raise
        raise no_mlflow(self._registry_uri)

    def _search_versions(self) -> list[MlflowVersion]:
        with self._answers():
            return list(_all_pages(self._connected().search_model_versions))

    def _versions_by_model(
        self, models: Mapping[str, Mapping[str, str]]
    ) -> dict[str, list[ModelVersion]]:
        """The versions of the models, which are given by name with their tags."""
        wanted = [v for v in self._search_versions() if v.name in models]
        unread = [record for record in wanted if self._must_read(record)]
        unread += self._to_look_at_again(wanted)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="mlmodel") as readers:
            list(readers.map(self._read_artifacts, unread))
        by_model: dict[str, list[ModelVersion]] = {}
        for record in wanted:
            version = self._with_facts(record, models[record.name])
            by_model.setdefault(record.name, []).append(version)
        self._forget_all_but({_fingerprint(record) for record in wanted})
        return by_model

    def _to_look_at_again(self, records: Iterable[MlflowVersion]) -> list[MlflowVersion]:
        """Those without a signature, since `mlflow.models.set_signature` writes one into the file
        that is there: all of them, or of very many those that were looked at the longest ago."""
        doubtful = [record for record in records if self._is_unsigned(record)]
        doubtful.sort(key=lambda record: self._looked_at.get(_fingerprint(record), 0.0))
        return doubtful[:_LOOKED_AT_AGAIN]

    def _is_unsigned(self, record: MlflowVersion) -> bool:
        known = self._known.get(_fingerprint(record))
        return record.status == "READY" and known is not None and known.unsigned is not None

    def _forget_all_but(self, fingerprints: set[str]) -> None:
        self._looked_at = {k: v for k, v in self._looked_at.items() if k in fingerprints}
        self._known = {k: v for k, v in self._known.items() if k in fingerprints}
        self._unreadable = {k: v for k, v in self._unreadable.items() if k in fingerprints}

    def _must_read(self, record: MlflowVersion) -> bool:
        fingerprint = _fingerprint(record)
        if record.status != "READY":
            return False
        known = self._known.get(fingerprint)
        if known is not None:
            looked_at = self._looked_at.get(fingerprint, -_RETRY_UNREADABLE_AFTER_S)
            is_recent = time.monotonic() - looked_at < _RETRY_UNREADABLE_AFTER_S
            return known.read_as != READ_AS and not is_recent
        unreadable = self._unreadable.get(fingerprint)
        return unreadable is None or not unreadable.is_recent

    def _with_facts(self, record: MlflowVersion, tags_of_model: Mapping[str, str]) -> ModelVersion:
        """The version with what is known of its artifacts; the same object while nothing changes,
        so that a quiet registry costs no copies and no comparisons further on."""
        fingerprint = _fingerprint(record)
        known = self._known.get(fingerprint)
        if known is None:
            unreadable = self._unreadable.get(fingerprint)
            facts = ModelFacts() if unreadable is None else unreadable.facts
            return _version(record, fingerprint, facts)
        untyped = is_untyped(record.tags or {}) or is_untyped(tags_of_model)
        changeable = {**_changeable(record), **_typed(known, untyped=untyped)}
        if any(getattr(known, name) != value for name, value in changeable.items()):
            known = self._known[fingerprint] = known.model_copy(update=changeable)
        return known

    def _read_artifacts(self, record: MlflowVersion) -> None:
        """Have the facts of a version in `_known`, or why there are none in `_unreadable`."""
        fingerprint = _fingerprint(record)
        self._looked_at[fingerprint] = time.monotonic()
        try:
            facts, inferred, example = self._fetch_facts(record)
        except _UNREADABLE as error:
            if fingerprint in self._known:
                return  # it was looked at again, and is as it was as far as anybody knows
            _logger.warning(
                "the MLmodel file of %s version %s can't be read", record.name, record.version,
                exc_info=error,
            )  # fmt: skip
            facts = ModelFacts(problem="Its MLmodel file can't be read from the artifact store.")
            self._unreadable[fingerprint] = _Unreadable(facts)
        else:
            read = _version(record, fingerprint, facts, inferred=inferred, example=example)
            known = self._known.get(fingerprint)
            if known is None or _read_of(known) != _read_of(read):
                self._known[fingerprint] = read

    def _fetch_facts(self, record: MlflowVersion) -> tuple[ModelFacts, str | None, Any]:
        """What the MLmodel file says, the signature that comes of its example alone, and that."""
        files = self._files(record.name, record.version)
        facts = read_mlmodel(_text(files, "MLmodel"))
        inferred = _inferred(files, facts)
        signature = facts.signature or inferred or (UNTYPED_SIGNATURE if facts.unsigned else None)
        if facts.example_path is None or signature is None:
            return facts, inferred, None
        return facts, inferred, _example(files, facts.example_path, signature)

    def _files(self, name: str, number: str) -> VersionFiles:
        # Not the client's own method, which first asks whether the name is a prompt's: a request
        # more for each version, and the search that found it lists no prompts.
        registry = self._connected()._get_registry_client()  # type: ignore[no-untyped-call]
        return self._stores.open(registry.get_model_version_download_uri(name, number))


def _read_of(version: ModelVersion) -> tuple[object, ...]:
    """What another reading of the same artifacts may find."""
    return version.unsigned, version.inferred, version.read_as


def _text(files: VersionFiles, path: str) -> str:
    return files.read_known(path).decode("utf-8")


def _example(files: VersionFiles, path: str, signature: str) -> Any:
    try:
        return read_example(_text(files, path), signature)
    except _UNREADABLE:
        return None  # an example is a nicety: the version serves without it


def _inferred(files: VersionFiles, facts: ModelFacts) -> str | None:
    """The signature that an unsigned version's input example has; None where there is none."""
    info = facts.logged_example
    path = None if info is None else info.get("artifact_path")
    if facts.unsigned is None or info is None or not isinstance(path, str):
        return None
    try:
        return inferred_signature(info, _text(files, path))
    except _UNREADABLE:
        return None


def _typed(version: ModelVersion, *, untyped: bool) -> Mapping[str, Any]:
    """How a version without a signature is served: untyped where a tag says so, else by the types
    of its input example, else not at all."""
    if version.unsigned is None:
        return {}
    signature = UNTYPED_SIGNATURE if untyped else version.inferred
    return {"signature": signature, "problem": version.unsigned if signature is None else None}


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(filter_string=None, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _registered_model(model: MlflowModel, versions: Iterable[ModelVersion]) -> RegisteredModel:
    return RegisteredModel(
        name=model.name,
        description=model.description or "",
        tags=dict(model.tags or {}),
        aliases={alias: int(number) for alias, number in (model.aliases or {}).items()},
        versions=tuple(sorted(versions, key=lambda version: version.number)),
        created_at_ms=int(model.creation_timestamp or 0),
    )


def _version(
    record: MlflowVersion,
    fingerprint: str,
    facts: ModelFacts,
    *,
    inferred: str | None = None,
    example: Any = None,
) -> ModelVersion:
    return ModelVersion(
        number=int(record.version),
        fingerprint=f"{fingerprint}{UNSIGNED}" if facts.unsigned else fingerprint,
        signature=facts.signature,
        problem=facts.problem,
        unsigned=facts.unsigned,
        inferred=inferred,
        flavor=facts.flavor,
        ships_code=facts.ships_code,
        example=example,
        task=facts.task,
        streamable=facts.streamable,
        read_as=READ_AS,
        created_at_ms=int(record.creation_timestamp or 0),
        **_changeable(record),
    )


def _changeable(record: MlflowVersion) -> Mapping[str, Any]:
    """What the registry may say anew about the same artifacts."""
    return {
        "registry_status": record.status,
        "stage": None if record.current_stage in _NO_STAGES else record.current_stage,
        "description": record.description or "",
        "run_id": record.run_id or None,
        "accept_breaking": accepts_breaking(record.tags or {}),
        "environment": environment_mode(record.tags or {}),
        "warnings": version_warnings(record.tags or {}),
    }


def _no_model(name: str) -> str:
    return f"The registry has no model that is called {name}."


def _no_version(name: str, number: int) -> str:
    return f"The registry has no version {number} of a model that is called {name}."


def _named(name: str) -> str:
    """MLflow's filter for one model; its strings may be in either kind of quotes."""
    quote = '"' if "'" in name else "'"
    return f"name={quote}{name}{quote}"


def _fingerprint(record: MlflowVersion) -> str:
    return f"{record.name}/{record.version}/{record.creation_timestamp}/{record.source}"
