"""A model's default and its contract as tags of the registered model: what a gateway without a
disk, or another one, is to go on from. Pure.

`modelmux.default_version` is the default's number, `modelmux.contract_version` that of the version
whose contract is in force, both for people; `modelmux.pinned` has what else decides about defaults,
as JSON. Contracts are named by the versions that have them: one whose version is gone is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.catalog import FormerDefault, ModelVersion, ServedModel
from registry_sync.records import RegisteredModel
from registry_sync.tags import CONTRACT_VERSION, DEFAULT_VERSION, PINNED


class _Promise(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int
    contract: int | None = None
    earlier: tuple[int, ...] = ()
    rolled_back: bool = False


class _Pinned(_Promise):
    former: tuple[_Promise, ...] = ()
    passed_over: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The default that the registry has pinned: its `number`, and what was promised by it."""

    number: int
    default: FormerDefault | None
    former: tuple[FormerDefault, ...] = ()
    passed_over: int = 0

    def as_previous(self, record: RegisteredModel) -> ServedModel:
        """The model as it was when it was pinned, for who knows no better; by the contract of the
        default before it where nobody knows its own any more."""
        promised = self.default or next(reversed(self.former), None)
        return ServedModel(
            name=record.name,
            versions=record.versions,
            default_version=self.number,
            contract=None if promised is None else promised.contract,
            earlier_contracts=() if promised is None else promised.earlier_contracts,
            default_cause="pinned",
            former_defaults=self.former,
            passed_over=self.passed_over,
            created_at_ms=record.created_at_ms,
        )


def pin_of(record: RegisteredModel) -> Pin | None:
    """What is pinned of a model; None where nothing is, or nothing that can be read."""
    text = record.tags.get(DEFAULT_VERSION, "").strip()
    if not text.isdecimal():
        return None
    number = int(text)
    versions = {version.number: version for version in record.versions}
    told = _told(record.tags)
    if told is None or told.version != number:  # by hand, or half of it is written
        told = _Pinned(version=number, contract=number)
    former = (_former(each, versions) for each in told.former)
    default = _former(told, versions)
    if default is None and number not in versions:
        default = _gone(told, versions)
    return Pin(
        number=number,
        default=default,
        former=tuple(each for each in former if each is not None),
        passed_over=told.passed_over,
    )


def pinned_number(tags: Mapping[str, str]) -> int | None:
    """The number of the pinned default, as the tags have it."""
    text = tags.get(DEFAULT_VERSION, "").strip()
    return int(text) if text.isdecimal() else None


def pin_tags(model: ServedModel) -> dict[str, str]:
    """The tags that pin a model's default, in the order in which they are to be written: who reads
    half of them reads what was before."""
    assert model.default_version is not None
    numbers = {v.signature: v.number for v in model.versions if v.signature is not None}
    default = model.default
    own = None if default is None else default.signature
    contract = model.default_version if own == model.contract else numbers.get(model.contract or "")
    pinned = _Pinned(
        version=model.default_version,
        contract=contract,
        earlier=_numbers(model.earlier_contracts, numbers),
        former=tuple(
            _Promise(
                version=each.number,
                contract=numbers.get(each.contract),
                earlier=_numbers(each.earlier_contracts, numbers),
                rolled_back=each.rolled_back,
            )
            for each in model.former_defaults
        ),
        passed_over=model.passed_over,
    )
    return {
        PINNED: pinned.model_dump_json(exclude_defaults=True),
        CONTRACT_VERSION: str(contract or model.default_version),
        DEFAULT_VERSION: str(model.default_version),
    }


def _told(tags: Mapping[str, str]) -> _Pinned | None:
    try:
        return _Pinned.model_validate_json(tags.get(PINNED, ""))
    except ValidationError:
        return None


def _former(told: _Promise, versions: Mapping[int, ModelVersion]) -> FormerDefault | None:
    version = versions.get(told.version)
    contract = versions.get(told.contract or told.version, version)
    if version is None or contract is None or contract.signature is None:
        return None
    return FormerDefault(
        number=version.number,
        fingerprint=version.fingerprint,
        contract=contract.signature,
        earlier_contracts=_signatures(told.earlier, versions),
        rolled_back=told.rolled_back,
    )


def _gone(told: _Promise, versions: Mapping[int, ModelVersion]) -> FormerDefault | None:
    """What was promised by a version that is no more, where another one has that contract."""
    contract = versions.get(told.contract or 0)
    if contract is None or contract.signature is None:
        return None
    return FormerDefault(number=told.version, fingerprint="", contract=contract.signature)


def _signatures(numbers: tuple[int, ...], versions: Mapping[int, ModelVersion]) -> tuple[str, ...]:
    found = (versions[number].signature for number in numbers if number in versions)
    return tuple(signature for signature in found if signature is not None)


def _numbers(contracts: tuple[str, ...], numbers: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(numbers[each] for each in contracts if each in numbers)
