"""What may be inside at once: bounds per model and in all, and that everything is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Admission, AdmissionLimits
from gateway.errors import Overloaded

KIB = 1024
FEW = AdmissionLimits(model_requests=3, model_rows=10, rows=15, body_bytes=1_000 * KIB)


def test_a_request_of_any_size_passes_where_nothing_else_is_there() -> None:
    """A bound is on what waits beside others: it never refuses a lone request for its own size."""
    admission = Admission(FEW)
    with admission.arrive("m") as visit:
        visit.hold_bytes(10_000 * KIB)
        visit.hold_bytes(10_000 * KIB)
        visit.has_come()
        visit.hold_rows(1_000)
        visit.hold_answer(20_000 * KIB)


def test_the_defaults_let_256_single_rows_and_a_longest_list_in_together() -> None:
    """Neither a crowd of small callers nor one long list meets a bound that nobody has set."""
    admission = Admission()
    visits = [admission.arrive("m") for _ in range(256)]
    for visit in visits:
        visit.hold_bytes(100)
        visit.hold_rows(1)
    with admission.arrive("m") as long:
        long.hold_bytes(64 * 1024 * 1024)
        long.hold_rows(100_000)


def test_a_model_that_is_full_is_refused_before_its_body_is_read() -> None:
    """Full in requests or in rows: the next one is refused on arrival, other models are not."""
    for rows, crowd in ((1, 3), (10, 1)):
        admission = Admission(FEW)
        for _ in range(crowd):
            admission.arrive("m").hold_rows(rows)
        with pytest.raises(Overloaded) as refused:
            admission.arrive("m")
        assert refused.value.retry_after_s
        with admission.arrive("other") as visit:
            visit.hold_rows(1)


def test_rows_that_no_longer_fit_are_refused() -> None:
    """A model's rows, and those of all models together."""
    admission = Admission(FEW)
    admission.arrive("m").hold_rows(6)
    with admission.arrive("m") as visit, pytest.raises(Overloaded):
        visit.hold_rows(5)
    admission.arrive("other").hold_rows(9)
    with admission.arrive("third") as visit, pytest.raises(Overloaded):
        visit.hold_rows(1)


def test_bytes_are_counted_while_they_come() -> None:
    """A body is refused at the piece for which there is no room beside the others."""
    admission = Admission(FEW)
    with admission.arrive("a") as first, admission.arrive("b") as second:
        first.hold_bytes(900 * KIB)
        first.has_come()
        second.hold_bytes(100 * KIB)
        with pytest.raises(Overloaded):
            second.hold_bytes(1)


def test_bodies_that_are_still_coming_have_a_share() -> None:
    """Of the bytes a quarter is for those of one model that aren't there yet, half for those of all
    models; what is there makes room for more of them."""
    admission = Admission(FEW)
    stuck = [admission.arrive("m"), admission.arrive("m"), admission.arrive("other")]
    stuck[0].hold_bytes(200 * KIB)
    with pytest.raises(Overloaded):
        stuck[1].hold_bytes(100 * KIB)
    stuck[2].hold_bytes(250 * KIB)
    with admission.arrive("third") as third:
        with pytest.raises(Overloaded):
            third.hold_bytes(100 * KIB)
        stuck[0].has_come()
        third.hold_bytes(100 * KIB)
        stuck[1].hold_bytes(100 * KIB)


def test_small_bodies_always_come_in() -> None:
    """However many bytes are inside, complete or not, of this model or of others."""
    admission = Admission(FEW)
    admission.arrive("m").hold_bytes(5_000 * KIB)
    for model in ("m", "other"):
        visit = admission.arrive(model)
        visit.hold_bytes(60 * KIB)
        visit.hold_bytes(4 * KIB)
        visit.has_come()
        visit.hold_rows(1)
        with pytest.raises(Overloaded):
            visit.hold_bytes(1)


def test_answers_that_nobody_reads_have_a_share() -> None:
    """Their bytes are held instead of the request's bytes and rows; past a model's share the next
    large answer is refused, and once it is used up so is whoever comes, before the model is asked;
    other models' callers are let in."""
    admission = Admission(FEW)
    visit = admission.arrive("m")
    visit.hold_bytes(500 * KIB)
    visit.has_come()
    visit.hold_rows(9)
    visit.hold_answer(200 * KIB)
    assert (admission.body_bytes, admission.rows, admission.loads["m"].rows) == (200 * KIB, 0, 0)
    assert admission.loads["m"].requests == 1
    with admission.arrive("m") as second:
        second.hold_answer(64 * KIB)
        with pytest.raises(Overloaded):
            second.hold_answer(100 * KIB)
    visit.leave()
    with admission.arrive("m") as third:
        third.hold_answer(250 * KIB)
        with pytest.raises(Overloaded):
            admission.arrive("m")
        admission.arrive("other").leave()
    admission.arrive("m").leave()


def test_a_request_whose_body_is_still_coming_takes_no_place_of_the_model() -> None:
    """Slow callers don't keep others out: only what waits for the model counts for it."""
    admission = Admission(FEW)
    slow = [admission.arrive("m") for _ in range(50)]
    with admission.arrive("m") as visit:
        visit.hold_rows(1)
    assert slow


def test_models_are_in_use_from_their_first_row_to_their_last() -> None:
    """What was inside since the last time is told once, what still is each time."""
    admission = Admission(FEW)
    with admission.arrive("short") as visit:
        visit.hold_rows(1)
    with admission.arrive("long") as visit:
        visit.hold_rows(1)
        assert admission.take_used() == ["long", "short"]
        assert admission.take_used() == ["long"]
    assert admission.take_used() == ["long"]
    assert admission.take_used() == []


sizes = st.integers(0, 1_200)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), sizes, sizes, st.booleans())))
def test_everything_is_given_back(requests: list[tuple[str, int, int, int, bool]]) -> None:
    """Whoever was let in or refused, and for what: once all have left, nothing is held."""
    admission = Admission(FEW)
    visits = []
    for model, rows, size, answer, comes in requests:
        try:
            visit = admission.arrive(model)
            visits.append(visit)
            visit.hold_bytes(size * KIB)
            if comes:
                visit.has_come()
                visit.hold_rows(rows)
                visit.hold_answer(answer * KIB)
        except Overloaded:
            pass
    for visit in visits:
        with visit:
            pass
    assert (admission.loads, admission.rows, admission.body_bytes) == ({}, 0, 0)
    for slow in (admission.coming, admission.leaving):
        assert (slow.total, slow.models) == (0, {})
