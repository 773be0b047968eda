"""Batch sizes: fixed bounds, and a cost model that is learned from each version's answers.

Owns what a row costs a version, in the model's time and in bytes of the answer, and how many rows a
call may have for it. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from gateway.contract.outputs import Output, row_bytes
from gateway.ports import MODEL_STEP, Call, CallResult

_FIRST_PART_ROWS = 256
_TELLING_MS = 256.0
_QUICK_MS = 1e-6
_UNMEASURED_ROWS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds on what travels together, and on how much is on its way.

    `max_rows` and `max_bytes` (of JSON as it was received) are of one call: a longer list goes in
    several, and so does one whose answer would have more than `max_answer_bytes`, by what rows had
    so far. So does one that would keep the model busy for longer than `max_part_ms`, by what rows
    took so far, since others wait behind it; but for time no part is made smaller than
    `min_part_rows`, unless it would outlast `deadline_share` of the callers' patience.

    Rows of several callers share a call as long as they take no more than `max_part_ms`, or
    `max_growth` times what a call of one row takes where that is more: past it sharing saves next
    to nothing, and all wait for the last row. Where that would be too late for some of them, as a
    call should take no more than `deadline_share` of what they have left, it is the smallest call
    that answers `enough_speed` of the rows in a second that the best one would.

    A model with one replica has `calls_of_one_replica` on their way: what comes meanwhile travels
    together next, and to its socket and back is no way worth hiding. Where there are several,
    `calls_per_replica` keep each busy while an answer travels by handle.
    After a call of several callers the next one waits for `turns` turns of the event loop until
    `few_callers` wait: those who were just answered ask again, and a call costs much the same for
    one row as for a dozen. (What was tried and measured: docs/decisions/0029, 0031 and 0058.)
    """

    max_rows: int = 16_384
    max_bytes: int = 16 * 1024 * 1024
    max_answer_bytes: int = 64 * 1024 * 1024
    max_part_ms: float = 50.0
    min_part_rows: int = 16
    max_growth: float = 8.0
    deadline_share: float = 2 / 3
    enough_speed: float = 0.8
    calls_of_one_replica: int = 1
    calls_per_replica: int = 2
    few_callers: int = 64
    turns: int = 4

    def calls_to(self, replicas: int) -> int:
        """The most calls on their way at once to a model of so many replicas."""
        return self.calls_of_one_replica if replicas == 1 else self.calls_per_replica * replicas


class RowCosts:
    """What rows of one version cost so far, and what that leaves room for.

    `part_rows` is the most rows of one caller in a call, `shared_rows` the most of all callers, as
    far as it isn't about deadlines (see `plan`).
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._ms_per_call = 0.0
        self._ms_per_row: float | None = None
        self._answer_bytes_per_row = 0.0
        self._unmeasured = 0
        self._patient_rows = inf
        self.part_rows = min(limits.max_rows, _FIRST_PART_ROWS)

    def learn(self, call: Call, result: CallResult) -> None:
        """Take in what an answer, one value for each row, took and how large it is."""
        spent_ms, rows = result.timings_ms.get(MODEL_STEP), call.frame.rows
        self._unmeasured -= rows
        large = self._unmeasured < 0 and self._learn_size(result.output)
        if spent_ms is None:
            told = False
        elif rows == 1:
            told = self._learn_of_one_row(spent_ms)
        else:
            told = self._learn_of_rows(spent_ms, rows)
        if told or large:
            self._bound_parts(call.patience_s)

    def learn_of_deserted(self, call: Call, spent_ms: float) -> None:
        """A call that all have left took at least so long: the next one has to be smaller. That
        callers leave one that wasn't late says nothing."""
        rows = call.frame.rows
        if rows < 2 or spent_ms <= self._longest_ms:
            return
        least = (spent_ms - self._ms_per_call) / rows
        if self._ms_per_row is None or least > self._ms_per_row:
            self._ms_per_row = least
            self._bound_parts(call.patience_s)

    @property
    def shared_rows(self) -> int:
        """The most rows of all callers in a call."""
        return self._at_most(min(self._longest_ms / self._row_ms, self._patient_rows))

    def time_s(self, rows: int) -> float:
        """In how many seconds a call of so many rows is surely answered, as far as is known."""
        ms = self._ms_per_call + self._row_ms * rows
        return ms / self._limits.deadline_share / 1e3

    def plan(self, lefts_s: Sequence[float], rows: int) -> tuple[float, int]:
        """For callers who have so many seconds left, and `rows` rows in all that may share a call:
        how much a caller of the next call needs to have left, and the most rows of it.

        The call is the smallest that answers nearly as many rows in a second as any would: what is
        large is quicker for each row, and too late for some. Where all are too late by what is
        known, none is left out, and the call takes twice what one row takes. Two rows may always
        go: alone they would never show what company saves.
        """
        ordered = sorted(lefts_s)
        rates: list[tuple[float, float, int]] = []
        size = rows
        while size > 1 or not rates:
            needed_s = self.time_s(size)
            in_time = (len(ordered) - bisect_left(ordered, needed_s)) / len(ordered)
            rates.append((min(size, rows * in_time) / needed_s, needed_s, size))
            size //= 2
        enough = max(rates)[0] * self._limits.enough_speed
        if not enough:
            return -inf, min(rows, max(2, self._at_most(self._ms_per_call / self._row_ms)))
        return next((needed_s, size) for rate, needed_s, size in reversed(rates) if rate >= enough)

    @property
    def _row_ms(self) -> float:
        """What a row takes; until that is known no more than a call of one."""
        known = self._ms_per_call if self._ms_per_row is None else self._ms_per_row
        return max(known, _QUICK_MS)

    @property
    def _longest_ms(self) -> float:
        return max(self._limits.max_part_ms, self._limits.max_growth * self._ms_per_call)

    def _at_most(self, rows: float) -> int:
        limits = self._limits
        if rows * self._answer_bytes_per_row > limits.max_answer_bytes:
            rows = limits.max_answer_bytes / self._answer_bytes_per_row
        return int(max(1.0, min(rows, limits.max_rows)))

    def _bound_parts(self, patience_s: float) -> None:
        limits = self._limits
        if self._ms_per_row is None:
            rows: float = _FIRST_PART_ROWS
        else:
            rows = max(limits.min_part_rows, limits.max_part_ms / self._row_ms)
        longest_ms = patience_s * 1e3 * limits.deadline_share - self._ms_per_call
        self._patient_rows = longest_ms / self._row_ms
        self.part_rows = self._at_most(min(rows, self._patient_rows))

    def _learn_of_one_row(self, spent_ms: float) -> bool:
        """What is least counts most: what else the machine was busy with is not the model's."""
        before = self._ms_per_call
        slower_ms = spent_ms - before
        self._ms_per_call = before + slower_ms / 8 if before and slower_ms > 0 else spent_ms
        if self._ms_per_row is None:
            return spent_ms > self._limits.max_part_ms
        if spent_ms >= self._ms_per_row:
            return False
        self._move(spent_ms, 1)  # a row takes no longer than a call of one
        return True

    def _learn_of_rows(self, spent_ms: float, rows: int) -> bool:
        if spent_ms < self._ms_per_call:
            # The calls of one row were slower, as the first of a model often is: they said too
            # much about what a call takes, and this one doesn't tell its shares apart.
            self._ms_per_call = spent_ms / 2
        latest = (spent_ms - self._ms_per_call) / rows
        if self._ms_per_row is None:
            self._ms_per_row = latest
        else:
            self._move(latest, rows)
        return True

    def _move(self, latest: float, rows: int) -> None:
        """The more rows a call had, or the further it was from what was expected, the more it says
        about a row."""
        before = self._ms_per_row or 0.0
        says = max(rows, abs(latest - before) * rows)
        self._ms_per_row = before + (latest - before) * says / (says + _TELLING_MS)

    def _learn_size(self, output: Output) -> bool:
        """Take in how large a row of the answer is, up at once and down slowly; whether that
        bounds anything. Not for each small call: it would cost as much as all else here."""
        size, before = row_bytes(output), self._answer_bytes_per_row
        self._unmeasured = _UNMEASURED_ROWS
        self._answer_bytes_per_row = size if size >= before else before + (size - before) / 8
        return max(size, before) * self._limits.max_rows > self._limits.max_answer_bytes
