"""Which models the list shows: search, a filter by state, and pages that load at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.availability import Unloadable, why_model_is_silent
from gateway.catalog import Catalog, ServedModel
from gateway.http.views import ModelSummary, summarize

PAGE_SIZE = 50

Show = Literal["all", "ready", "held", "unservable"]
STATES: tuple[Show, ...] = get_args(Show)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked for. `page` counts from 1; one that isn't there stands for the nearest."""

    words: str = ""
    show: Show = "all"
    page: int = 1

    @classmethod
    def of(cls, words: str, show: str, page: str) -> Question:
        """From what a query string says; what means nothing is as if it weren't there."""
        wanted: Show = next((known for known in STATES if known == show), "all")
        number = int(page) if page.isascii() and page.isdecimal() and len(page) < 10 else 1
        return cls(words=words.strip(), show=wanted, page=max(1, number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of the list. `counts` are of what the words alone find, by `Show`."""

    question: Question
    models: tuple[ModelSummary, ...]
    counts: dict[Show, int]
    total: int
    first: int
    page: int
    pages: int

    @property
    def found(self) -> int:
        """How many models there are on all pages."""
        return self.counts[self.question.show]


def listing(catalog: Catalog, unloadable: Unloadable, question: Question) -> Listing:
    """The part of a catalog that was asked for, by name."""
    words = question.words.casefold().split()
    matching = [m for m in catalog.models.values() if all(w in _searched(m) for w in words)]
    matching.sort(key=lambda model: (model.name.casefold(), model.name))
    is_up = [why_model_is_silent(model, unloadable) is None for model in matching]
    by_state: dict[Show, list[ServedModel]] = {
        "all": matching,
        "ready": [model for model, up in zip(matching, is_up, strict=True) if up],
        "held": [model for model in matching if model.held is not None],
        "unservable": [model for model, up in zip(matching, is_up, strict=True) if not up],
    }
    chosen = by_state[question.show]
    pages = max(1, -(-len(chosen) // PAGE_SIZE))
    page = min(question.page, pages)
    start = (page - 1) * PAGE_SIZE
    return Listing(
        question=question,
        models=tuple(summarize(model, unloadable) for model in chosen[start : start + PAGE_SIZE]),
        counts={state: len(models) for state, models in by_state.items()},
        total=len(catalog.models),
        first=start + 1,
        page=page,
        pages=pages,
    )


def _searched(model: ServedModel) -> str:
    return "\n".join((model.name, model.description, *model.aliases, *_inputs_of(model))).casefold()


def _inputs_of(model: ServedModel) -> Iterator[str]:
    """The names of what is sent to the model, where they have some."""
    promise = model.promise
    if promise is not None and promise.inputs.named:
        yield from (field.name for field in promise.inputs.fields)
