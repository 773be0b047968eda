"""What keeps one version from answering for the contract of another.

A version may answer where every request valid under the contract is valid for it and means the
same, and every answer of it is valid under the contract: inputs and params may be loosened,
outputs may be tightened. The rule goes down into arrays, objects, maps and tensors. For people it
is in docs/3-versions-and-the-gate.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from gateway.contract.body import wraps
from gateway.contract.contract import Contract
from gateway.contract.extension import extended_rows
from gateway.contract.text_formats import pointer
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    Field,
    MapOf,
    ObjectOf,
    Param,
    Rows,
    Scalar,
    TensorOf,
    TextOrTexts,
    Type,
    describe,
)

Section = Literal["inputs", "params", "outputs"]
Change = Literal[
    "added",  # the candidate has it, the contract doesn't
    "removed",  # the contract has it, the candidate doesn't
    "now_required",
    "now_optional",
    "type",
    "shape",  # of a tensor, or one value where there were lists of them
    "names",  # columns with names against columns without
    "count",  # of unnamed columns
    "reading",  # the same body would be read as other inputs
    "default",  # of a param; a difference only where signatures must be equal
    "signature",  # something else; only where signatures must be equal
]

_MESSAGES: dict[Change, str] = {
    "added": "is new",
    "removed": "is gone",
    "now_required": "was optional and is required",
    "now_optional": "was required and is optional",
    "type": "has another type",
    "shape": "has another shape",
    "names": "had names and has none, or the other way round",
    "count": "are another number of columns",
    "reading": "would be read differently from the same body",
    "default": "has another default",
    "signature": "differ in the order or the naming of their columns",
}

# What a value of the key may be cast to without loss of meaning.
_WIDER: dict[str, set[str]] = {
    "integer": {"long", "double"},
    "long": {"double"},
    "float": {"double"},
}

_EACH = "*"  # stands in a pointer for the elements of a list or the values of a map


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One change that the contract doesn't allow.

    `pointer` is a path in the section, `*` in it the elements of a list or map; `contract` and
    `candidate` say in short what each has there (None: nothing).
    """

    section: Section
    pointer: str
    change: Change
    contract: str | None
    candidate: str | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """The members by name, for JSON."""
        return asdict(self)


def differences(
    contract: Contract, candidate: Contract, *, exact: bool = False
) -> tuple[Difference, ...]:
    """Why `candidate` may not answer for `contract`; empty where it may.

    With `exact` it may only where the signatures are equal (type hints or not makes none). Where
    either has no signature there is nothing to compare.
    """
    if contract.untyped or candidate.untyped:
        return ()
    found = [
        *_compared_inputs(contract.accepted, candidate.inputs, exact),
        *_compared_params(contract.accepted_params, candidate.params, exact),
        *_compared_outputs(contract.promised, candidate.outputs, exact),
    ]
    mine = (contract.accepted, contract.accepted_params, contract.promised)
    theirs = (candidate.inputs, candidate.params, candidate.outputs)
    if exact and not found and mine != theirs:
        found = [_difference("inputs", (), "signature", None, None)]
    return tuple(found)


def _difference(
    section: Section,
    path: tuple[str, ...],
    change: Change,
    contract: str | None,
    candidate: str | None,
) -> Difference:
    place = pointer(path)
    subject = f"{section.capitalize()} {place}" if place else section.capitalize()
    sides = f" (contract: {contract or 'nothing'}; candidate: {candidate or 'nothing'})"
    return Difference(
        section=section,
        pointer=place,
        change=change,
        contract=contract,
        candidate=candidate,
        message=f"{subject} {_MESSAGES[change]}{sides if contract or candidate else ''}.",
    )


def _compared_inputs(contract: Rows, candidate: Rows, exact: bool) -> list[Difference]:
    walk = _Walk("inputs", exact)
    walk.rows(contract, candidate)
    if not walk.found and not _reads_alike(contract, candidate):
        walk.add((), "reading", describe(contract.row), describe(candidate.row))
    return walk.found


def _compared_outputs(
    contract: Rows | None, candidate: Rows | None, exact: bool
) -> list[Difference]:
    """A missing output signature is a promise of anything."""
    if contract is None and (candidate is None or not exact):
        return []
    if contract is None or candidate is None:
        sides = ("Any" if side is None else describe(side.row) for side in (contract, candidate))
        return [_difference("outputs", (), "type", *sides)]
    walk = _Walk("outputs", exact)
    walk.rows(contract, candidate)
    return walk.found


def _compared_params(
    contract: tuple[Param, ...], candidate: tuple[Param, ...], exact: bool
) -> list[Difference]:
    """New params have defaults and dropped ones are not passed on: both are fine."""
    walk = _Walk("params", exact)
    old, new = ({param.name: param for param in params} for params in (contract, candidate))
    for name in [*old, *(name for name in new if name not in old)]:
        walk.param(old.get(name), new.get(name))
    return walk.found


@dataclass
class _Walk:
    """Collects the differences of one section."""

    section: Section
    exact: bool
    found: list[Difference] = field(default_factory=list)

    def add(
        self, path: tuple[str, ...], change: Change, contract: str | None, candidate: str | None
    ) -> None:
        self.found.append(_difference(self.section, path, change, contract, candidate))

    def rows(self, contract: Rows, candidate: Rows) -> None:
        if contract.named != candidate.named:
            self.add((), "names", describe(contract.row), describe(candidate.row))
        elif contract.named:
            self.fields((), contract.fields, candidate.fields)
        elif len(contract.fields) != len(candidate.fields):
            self.add((), "count", str(len(contract.fields)), str(len(candidate.fields)))
        else:
            for old, new in zip(contract.fields, candidate.fields, strict=True):
                path = () if len(contract.fields) == 1 else (old.name,)
                self.type(path, old.type, new.type)

    def fields(
        self, path: tuple[str, ...], contract: tuple[Field, ...], candidate: tuple[Field, ...]
    ) -> None:
        old, new = ({f.name: f for f in fields} for fields in (contract, candidate))
        for name in [*old, *(name for name in new if name not in old)]:
            self.field((*path, name), old.get(name), new.get(name))

    def field(self, path: tuple[str, ...], contract: Field | None, candidate: Field | None) -> None:
        if contract is None or candidate is None:
            self._on_one_side(path, contract, candidate)
            return
        if contract.required != candidate.required:
            change: Change = "now_required" if candidate.required else "now_optional"
            loosening = change == "now_optional"
            if self.exact or loosening == (self.section == "outputs"):
                self.add(path, change, _described(contract), _described(candidate))
        self.type(path, contract.type, candidate.type)

    def _on_one_side(
        self, path: tuple[str, ...], contract: Field | None, candidate: Field | None
    ) -> None:
        """What is new must not be asked for, and what is gone must not be missed."""
        inputs = self.section != "outputs"
        if candidate is not None and (self.exact or (inputs and candidate.required)):
            self.add(path, "added", None, _described(candidate))
        if contract is not None and (self.exact or (not inputs and contract.required)):
            self.add(path, "removed", _described(contract), None)

    def param(self, contract: Param | None, candidate: Param | None) -> None:
        path = ((contract or candidate).name,)  # type: ignore[union-attr]  # one is never None
        if contract is None or candidate is None:
            if self.exact:
                change: Change = "added" if contract is None else "removed"
                self.add(path, change, _described_param(contract), _described_param(candidate))
            return
        if contract.nullable and not candidate.nullable:
            self.add(path, "now_required", _described_param(contract), _described_param(candidate))
        elif self.exact and contract.default != candidate.default:
            self.add(path, "default", _described_param(contract), _described_param(candidate))
        if isinstance(contract.type, ArrayOf) != isinstance(candidate.type, ArrayOf):
            self.add(path, "shape", describe(contract.type), describe(candidate.type))
        else:
            self.type(path, contract.type, candidate.type)

    def type(self, path: tuple[str, ...], contract: Type, candidate: Type) -> None:
        match contract, candidate:
            case ArrayOf(old), ArrayOf(new):
                self.type((*path, _EACH), old, new)
            case MapOf(old), MapOf(new):
                self.type((*path, _EACH), old, new)
            case ObjectOf(old_fields), ObjectOf(new_fields):
                self.fields(path, old_fields, new_fields)
            case TensorOf(), TensorOf():
                self._tensor(path, contract, candidate)
            case _ if not self._fits(contract, candidate):
                self.add(path, "type", describe(contract), describe(candidate))

    def _fits(self, contract: Type, candidate: Type) -> bool:
        if self.exact or contract == candidate:
            return contract == candidate
        if self.section == "outputs":
            return _wider(contract, than=candidate)
        return _wider(candidate, than=contract)

    def _tensor(self, path: tuple[str, ...], contract: TensorOf, candidate: TensorOf) -> None:
        if self.exact:
            same_dtype, same_shape = (
                contract.dtype == candidate.dtype,
                contract.shape == candidate.shape,
            )
        elif self.section == "outputs":
            same_dtype = _wider_dtype(contract, than=candidate)
            same_shape = _freer(contract.shape, than=candidate.shape)
        else:
            same_dtype = _wider_dtype(candidate, than=contract)
            same_shape = _freer_input(candidate, than=contract)
        if not same_dtype:
            self.add(path, "type", describe(contract), describe(candidate))
        if not same_shape:
            self.add(path, "shape", describe(contract), describe(candidate))


def _described(member: Field) -> str:
    return f"{describe(member.type)} ({'required' if member.required else 'optional'})"


def _described_param(param: Param | None) -> str | None:
    if param is None:
        return None
    return f"{describe(param.type)} (default {'null' if param.nullable else 'not null'})"


def _wider(type_: Type, *, than: Type) -> bool:
    """Whether every value of `than` is one of the type."""
    if isinstance(type_, AnyValue):
        return not isinstance(than, TensorOf)
    if isinstance(type_, TextOrTexts):
        return than in (Scalar("string"), ArrayOf(Scalar("string")))
    if isinstance(type_, Scalar) and isinstance(than, Scalar):
        return type_.kind in _WIDER.get(than.kind, ())
    return False


def _wider_dtype(tensor: TensorOf, *, than: TensorOf) -> bool:
    if tensor.dtype == than.dtype:
        return True
    numbers = tensor.dtype.kind in "iuf" and than.dtype.kind in "iuf"
    return numbers and np.can_cast(than.dtype, tensor.dtype, "safe")


def _freer(shape: tuple[int, ...], *, than: tuple[int, ...]) -> bool:
    if len(shape) != len(than):
        return False
    return all(mine in (-1, theirs) for mine, theirs in zip(shape, than, strict=True))


def _freer_input(tensor: TensorOf, *, than: TensorOf) -> bool:
    """A model that takes its rows one by one (a first dimension of 1) takes any number."""
    first = tensor.shape[0] in (-1, 1, than.shape[0])
    if tensor.dtype.kind == "O":  # its elements may be lists: a free length would read them
        return first and tensor.inner == than.inner
    return first and _freer(tensor.inner, than=than.inner)


def _reads_alike(contract: Rows, candidate: Rows) -> bool:
    """Whether both see the same inputs in every body that is valid under the contract.

    An object with the member "inputs" must not change between input and wrapper; and a list that
    was one input must not become a list of inputs, which it does where an unnamed input of
    arrays turns into one of anything.
    """
    if wraps(contract) != wraps(extended_rows(candidate, contract)):
        return False
    if contract.named:
        return True
    pairs = zip(contract.fields, candidate.fields, strict=True)
    return not any(_opens_lists(old.type, new.type) for old, new in pairs)


def _opens_lists(contract: Type, candidate: Type) -> bool:
    """Whether the candidate takes anything at a depth where the contract still had lists."""
    while isinstance(contract, ArrayOf) and isinstance(candidate, ArrayOf):
        contract, candidate = contract.items, candidate.items
    return isinstance(contract, ArrayOf) and isinstance(candidate, AnyValue)
