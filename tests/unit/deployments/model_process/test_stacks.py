"""Stack traces of whatever a model raises, as lines."""

from __future__ import annotations

from deployments.model_process.stacks import stack_lines


def test_what_led_to_an_exception_comes_before_it() -> None:
    """Causes, contexts and members of groups, each by its class, without any text."""
    group = ExceptionGroup("secret", [KeyError("secret"), IndexError("secret")])
    group.__cause__ = OSError("secret")
    error = ValueError("secret")
    error.__context__ = group
    assert stack_lines(error) == [
        f"builtins.{name}"
        for name in ("OSError", "KeyError", "IndexError", "ExceptionGroup", "ValueError")
    ]
    error.__suppress_context__ = True
    assert stack_lines(error) == ["builtins.ValueError"]
    assert stack_lines(None) == []


def test_however_many_led_to_it_the_last_ones_are_told() -> None:
    """Thousands, or a circle."""
    error = first = Exception()
    for _ in range(5000):
        later = ValueError()
        later.__cause__ = error
        error = later
    told = stack_lines(error)
    assert 1 < len(told) < 100
    assert set(told) == {"builtins.ValueError"}
    first.__cause__ = error.__cause__ = first
    assert stack_lines(error) == ["builtins.Exception", "builtins.ValueError"]


def test_members_that_are_none_are_no_members() -> None:
    """A class of a model's own may have anything under that name."""

    class Odd(Exception):
        exceptions = 5

    class Raising(Exception):
        @property
        def exceptions(self) -> object:
            raise RuntimeError

    assert [stack_lines(each)[-1].rpartition(".")[2] for each in (Odd(), Raising())] == [
        "Odd", "Raising",
    ]  # fmt: skip
