"""Would a version answer otherwise: both versions are asked the same, and their answers compared.

What they are asked is captured, their input example, or in a file. Prints nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from pydantic_core import from_json

from deployments.cli.local_versions import LocalVersions, NotLoadable, Show, local_versions
from deployments.settings import Settings
from gateway.capture.arrow_columns import json_text
from gateway.capture.files import CaptureUnusable, Store, require_arrow, store_at, tables_of
from gateway.capture.replay import NotReplayable, Question, questions_of
from gateway.catalog import ModelVersion, ServedModel, contract_of
from gateway.contract import Contract
from gateway.contract.body import wraps
from gateway.errors import GatewayError
from gateway.shadow.comparison import TOLERANCE, are_equal, compare
from registry_sync.contract_check import CannotTell
from registry_sync.records import RegisteredModel
from registry_sync.source import MlflowRegistry
from registry_sync.tags import parse_options

CAPTURED, EXAMPLE = "captured", "example"

_T = TypeVar("_T")

_TOGETHER = 256
_WORST = 5


@dataclass(slots=True, kw_only=True)
class ColumnDifferences:
    """How a column differs: in how many rows, and of numbers by how much."""

    name: str
    rows: int = 0
    different: int = 0
    amounts: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For machines; amounts are absolute, of the rows that differ."""
        amounts = np.array(self.amounts)
        told = {"column": self.name, "rows": self.rows, "different": self.different}
        names = {"median": 50, "p99": 99, "max": 100}
        return {
            **told,
            **{n: float(np.percentile(amounts, p)) if amounts.size else None
               for n, p in names.items()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentRow:
    """A row that differs: where it is from, what was asked, and both answers by column, or the
    error that the candidate answers with."""

    told: str
    inputs: Any
    answers: Mapping[str, tuple[Any, Any]]
    weight: float
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        answers = {n: {"against": a, "candidate": b} for n, (a, b) in self.answers.items()}
        return {
            "row": self.told,
            "inputs": self.inputs,
            "answers": answers,
            "error": self.error,
        }


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """What came of asking both. `failed` are rows that the candidate fails on and the other one
    answers, which count as different; `unanswered` those that the other one answers neither, and
    `refused` those that don't fit the contract: they are not compared."""

    on: str
    tolerance: float
    compared: int = 0
    different: int = 0
    failed: int = 0
    unanswered: int = 0
    refused: int = 0
    columns: dict[str, ColumnDifferences] = field(default_factory=dict)
    worst: list[DifferentRow] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many of the compared rows differ, of 1."""
        return self.different / self.compared if self.compared else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "on": self.on,
            "tolerance": self.tolerance,
            "compared": self.compared,
            "different": self.different,
            "ratio": self.ratio,
            "failed": self.failed,
            "failures": self.failures,
            "unanswered": self.unanswered,
            "refused": self.refused,
            "columns": [each.as_dict() for each in self.columns.values()],
            "worst": [each.as_dict() for each in self.worst],
        }


def behaviour(
    settings: Settings,
    name: str,
    *,
    against: int,
    candidate: int,
    on: str | None,
    tolerance: float | None,
    most_rows: int,
    show: Show,
) -> Behaviour:
    """Ask both versions; raises CannotTell, and RegistryUnreachable."""
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri
    )
    model = _served(registry.read_model(name))
    old, new = registry.read_version(name, against), registry.read_version(name, candidate)
    contract = contract_of(old.signature or "")
    on = on or (EXAMPLE if settings.capture_url is None else CAPTURED)
    try:
        found = list(islice(_questions(settings, name, old, contract, on), most_rows))
        if not found:
            raise CannotTell(f"there is nothing to ask: no rows in {on}")
        seen = Behaviour(on=on, tolerance=TOLERANCE if tolerance is None else tolerance)
        comparison = _Comparison(seen, contract, old, new, tolerance)
        asyncio.run(_compared(settings, model, comparison, found, show))
    except (NotLoadable, NotReplayable, CaptureUnusable) as problem:
        raise CannotTell(str(problem)) from problem
    if not seen.compared:
        raise CannotTell(
            f"nothing could be compared: {seen.refused} of {len(found)} rows don't "
            f"fit the contract, and version {against} answers none of the others"
        )
    return seen


def _served(record: RegisteredModel) -> ServedModel:
    return ServedModel(name=record.name, options=parse_options(record.tags)[0])


def _questions(
    settings: Settings, name: str, old: ModelVersion, contract: Contract, on: str
) -> Iterator[Question]:
    if on == EXAMPLE:
        body = contract.example() if old.example is None else old.example
        if body is None:
            raise CannotTell(f"version {old.number} has no input example")
        return _of_body(contract, body, "example")
    if on == CAPTURED:
        return _captured(settings, name, contract)
    path = Path(on)
    if not path.is_file():
        raise CannotTell(f"there is no file {on}; --on takes captured, example or a file")
    if path.suffix == ".jsonl":
        return _of_lines(contract, path)
    if path.suffix == ".parquet":
        return _of_file(contract, path)
    raise CannotTell(f"{on} is neither .parquet nor .jsonl")


def _of_body(contract: Contract, body: Any, told: str) -> Iterator[Question]:
    """Of a body as `/predict` takes it."""
    try:
        inputs, params = contract.taken_apart(body)
    except GatewayError as error:
        raise NotReplayable(f"{told} doesn't fit the contract: {error.detail}") from error
    for number, value in enumerate(inputs):
        yield Question(value=value, params=params, told=f"{told} row {number}", request=told)


def _of_lines(contract: Contract, path: Path) -> Iterator[Question]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                body = from_json(line, allow_inf_nan=False)
            except ValueError as error:
                raise NotReplayable(f"{path.name} line {number} is no JSON") from error
            yield from _of_body(contract, body, f"{path.name} line {number}")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise NotReplayable(f"{path} can't be read: {error.strerror}") from error


def _of_file(contract: Contract, path: Path) -> Iterator[Question]:
    require_arrow()
    import pyarrow as pa

    try:
        with tables_of(_opened(path)) as file:
            for batch in file.iter_batches():
                table = pa.Table.from_batches([batch])
                yield from questions_of(table, contract, source=path.name)
    except (pa.ArrowException, OSError) as error:
        raise NotReplayable(f"{path.name} can't be read as Parquet") from error


def _captured(settings: Settings, name: str, contract: Contract) -> Iterator[Question]:
    """The newest that were answered. Each file is of one version: those of versions that took
    something else are left out, and one that was removed meanwhile is as none."""
    if settings.capture_url is None:
        raise CannotTell("nothing is captured: set MODELMUX_CAPTURE_URL")
    require_arrow()
    store = store_at(settings.capture_url)
    asked, misfit = 0, None
    for path in _readable(partial(store.files_of, name)) or ():
        table = _readable(partial(_table_of, store, path))
        if table is None:
            continue
        try:
            for question in questions_of(table, contract, source=path):
                asked += 1
                yield question
        except NotReplayable as problem:
            misfit = problem
    if not asked and misfit is not None:
        raise misfit


def _table_of(store: Store, path: str) -> Any:
    with tables_of(store.open(path)) as file:
        return file.read(use_threads=False)


def _readable(read: Callable[[], _T]) -> _T | None:
    """What is read of a store; None where it is gone. Raises CannotTell where it can't be read."""
    import pyarrow as pa

    try:
        return read()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CannotTell(f"what was captured can't be read: {reason}") from error


@dataclass(slots=True)
class _Comparison:
    """Compares the answers of two versions, both by the contract of the first."""

    seen: Behaviour
    contract: Contract
    old: ModelVersion
    new: ModelVersion
    tolerance: float | None

    @property
    def extended(self) -> Contract:
        """The candidate's, for callers of the other one."""
        return contract_of(self.new.signature or "").extended_by(self.contract)

    async def ask(self, versions: LocalVersions, questions: Sequence[Question]) -> None:
        """Ask questions in one request, and one by one where that fails."""
        body = _body(self.contract, questions)
        old = await _answer(versions, self.old, self.contract, body)
        new = await _answer(versions, self.new, self.extended, body)
        if len(questions) > 1 and (isinstance(old, GatewayError) or isinstance(new, GatewayError)):
            for each in questions:
                await self.ask(versions, [each])
            return
        self._count(questions, old, new)

    def _count(
        self,
        questions: Sequence[Question],
        old: dict[str, list[Any]] | GatewayError,
        new: dict[str, list[Any]] | GatewayError,
    ) -> None:
        seen, rows = self.seen, len(questions)
        if isinstance(old, GatewayError):
            is_refused = old.status == _UNPROCESSABLE
            seen.refused += rows if is_refused else 0
            seen.unanswered += 0 if is_refused else rows
            return
        seen.compared += rows
        if isinstance(new, GatewayError):
            seen.failed += rows
            seen.different += rows
            seen.failures[new.code] = seen.failures.get(new.code, 0) + rows
            for each in questions:
                self._keep_worst(
                    DifferentRow(
                        told=each.told,
                        inputs=each.value,
                        answers={},
                        weight=math.inf,
                        error=new.code,
                    )
                )
            return
        compared = compare(old, new, self.tolerance)
        for column in compared.columns:
            counted = seen.columns.setdefault(column.name, ColumnDifferences(name=column.name))
            counted.rows += column.rows
            counted.different += len(column.different)
            pairs = (_pair(old, new, column.name, row) for row in column.different)
            amounts = (_amount(a, b) for a, b in pairs)
            counted.amounts += [each for each in amounts if each is not None]
        # An answer may have more rows than there were inputs, or fewer.
        seen.different += min(rows, len(compared.different))
        for row in compared.different:
            self._note(questions[min(row, rows - 1)], old, new, row)

    def _note(
        self,
        question: Question,
        old: Mapping[str, Sequence[Any]],
        new: Mapping[str, Sequence[Any]],
        row: int,
    ) -> None:
        pairs = {name: _pair(old, new, name, row) for name in dict.fromkeys((*old, *new))}
        differ = {n: p for n, p in pairs.items() if not are_equal(*p, self.tolerance)}
        weight = sum(_relative(*pair) for pair in differ.values())
        self._keep_worst(
            DifferentRow(told=question.told, inputs=question.value, answers=differ, weight=weight)
        )

    def _keep_worst(self, row: DifferentRow) -> None:
        worst = self.seen.worst
        worst.append(row)
        worst.sort(key=lambda each: -each.weight)
        del worst[_WORST:]


_UNPROCESSABLE = 422


async def _compared(
    settings: Settings,
    model: ServedModel,
    comparison: _Comparison,
    questions: Sequence[Question],
    show: Show,
) -> None:
    async with local_versions(settings, model, show) as versions:
        await versions.load(comparison.old)
        await versions.load(comparison.new)
        asked = 0
        for together in _together(comparison.contract, questions):
            show(f"Asking both versions: {asked} of {len(questions)} …")
            await comparison.ask(versions, together)
            asked += len(together)


def _together(contract: Contract, questions: Iterable[Question]) -> Iterator[list[Question]]:
    """Questions that can be one request: of equal params, and where nothing types the inputs those
    that were one."""
    run: list[Question] = []
    for each in questions:
        if run and not _may_join(contract, run, each):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _may_join(contract: Contract, run: Sequence[Question], new: Question) -> bool:
    if contract.task is not None or len(run) >= _TOGETHER or run[0].params != new.params:
        return False
    return not contract.untyped or (new.request is not None and run[0].request == new.request)


def _body(contract: Contract, questions: Sequence[Question]) -> bytes:
    values = [each.value for each in questions]
    if not wraps(contract.accepted):
        return (json_text(values) or "").encode()
    params = questions[0].params
    return (json_text({"inputs": values, **({"params": params} if params else {})}) or "").encode()


async def _answer(
    versions: LocalVersions, version: ModelVersion, contract: Contract, body: bytes
) -> dict[str, list[Any]] | GatewayError:
    """An answer by column, or the error that a caller would be told."""
    try:
        request = contract.parse(body)
        outputs = await versions.ask(version, request)
        return {each.name: each.values for each in contract.columns(outputs, request.rows)}
    except GatewayError as error:
        return error


def _pair(
    old: Mapping[str, Sequence[Any]], new: Mapping[str, Sequence[Any]], name: str, row: int
) -> tuple[Any, Any]:
    a, b = old.get(name, ()), new.get(name, ())
    return (a[row] if row < len(a) else None), (b[row] if row < len(b) else None)


def _amount(a: Any, b: Any) -> float | None:
    if not (_is_number(a) and _is_number(b)):
        return None
    amount = abs(float(b) - float(a))
    return amount if math.isfinite(amount) else None


def _relative(a: Any, b: Any) -> float:
    """How far apart, of 0 to 2; what isn't a number is all apart."""
    amount = _amount(a, b)
    if amount is None:
        return 2.0
    return amount / (max(abs(float(a)), abs(float(b))) or 1.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
