"""Captured requests as pieces of a table: rows that went to the model, and came back, together.

What was read together stays so: a table of many requests is made of few pieces.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat

from gateway.capture.kept import Kept
from gateway.contract import Frame, Output
from gateway.contract.outputs import bounds_of, joined_output, output_taken, row_count

_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows that went to the model in one frame, or are alike: those of one request, or of several
    that were read together, so many in each. Or one row without inputs."""

    requests: Sequence[Kept]
    sizes: Sequence[int]
    places: Sequence[int | None]
    frame: Frame | None = None
    output: Output | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.places)

    @property
    def is_even(self) -> bool:
        """Whether there is one answer for each input."""
        return self.output is not None and row_count(self.output) == self.rows


def pieces_of(kept: Sequence[Kept]) -> Iterator[Piece]:
    """All rows of these requests, in their order."""
    for key, group in groupby(kept, _alike):
        if key is not None:
            yield _joint_piece(list(group))
            continue
        for each in group:
            each.stands_alone()
            yield from _own_pieces(each)


def runs_of(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """Pieces one after the other whose answers are alike enough to be taken as one."""
    run: list[Piece] = []
    for piece in pieces:
        if run and not (piece.is_even and run[0].is_even and _is_alike(piece, run[0])):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _alike(kept: Kept) -> Hashable:
    """What those have in common whose rows are one piece; None of one that is by itself."""
    joint, output = kept.joint, kept.joint_output
    if joint is None or output is None or kept.status != _OK or joint.frame.whole:
        return None
    return joint.frame.key, output[0], tuple(output[1]) if output[0] == "columns" else ()


def _joint_piece(kept: Sequence[Kept]) -> Piece:
    frames: list[Frame] = []
    outputs: list[Output] = []
    sizes: list[int] = []
    rows: list[int] = []
    before = 0
    for _, group in groupby(kept, lambda each: id(each.joint)):
        of_one = list(group)
        joint, output = of_one[0].joint, of_one[0].joint_output
        assert joint is not None
        assert output is not None
        bounds = list(bounds_of(joint.sizes))
        for each in of_one:
            start, stop = bounds[each.number]
            sizes.append(stop - start)
            rows.extend(range(before + start, before + stop))
        before += joint.frame.rows
        frames.append(joint.frame)
        outputs.append(output)
    joined = joined_output(outputs)
    assert joined is not None
    return Piece(
        requests=kept,
        sizes=sizes,
        places=list(chain.from_iterable(map(range, sizes))),
        frame=Frame.concat(frames).taken(rows),
        output=output_taken(joined, rows),
    )


def _own_pieces(kept: Kept) -> Iterator[Piece]:
    request = kept.request
    if request is None or not request.frames:
        yield Piece(requests=[kept], sizes=[1], places=[None])
        return
    outputs: Iterator[Output | None] = repeat(None)
    if kept.outputs is not None and kept.status == _OK:
        outputs = iter(output for _, output in kept.outputs)
    for (places, frame), output in zip(request.frames, outputs, strict=False):
        answered = 0 if output is None else row_count(output) or 0
        more = range(places[-1] + 1, places[-1] + 1 + answered - len(places))
        where = [*places, *more]
        yield Piece(requests=[kept], sizes=[len(where)], places=where, frame=frame, output=output)


def _is_alike(piece: Piece, other: Piece) -> bool:
    assert piece.output is not None
    assert other.output is not None
    if piece.output[0] == "columns" and other.output[0] == "columns":
        return list(piece.output[1]) == list(other.output[1])
    return piece.output[0] == other.output[0]
