from __future__ import annotations

import pytest

from deployments.model_process.job import _failure

SECRET = "password hunter2"  # pragma: allowlist secret


@pytest.mark.parametrize(
    "name", [SECRET, "A\nERROR all is lost", "", "A" * 1000, "<script>"], ids=range(5)
)
def test_a_class_is_told_by_its_name_and_by_no_text_that_it_is_called(name: str) -> None:
    """A model can call a class anything: what is no name isn't told to anybody."""
    told = _failure(type(name, (Exception,), {})())
    assert told["reason"] == "an error without a name"


def test_the_class_is_told_and_the_text_is_for_the_log() -> None:
    """Of what the others came from, and of a module that is missing its name."""
    assert _failure(LookupError(SECRET))["reason"] == "LookupError"
    missing = ModuleNotFoundError(SECRET, name="skops")
    assert _failure(missing)["reason"] == "ModuleNotFoundError: No module named 'skops'"
    around = RuntimeError()
    around.__cause__ = ValueError(SECRET)
    assert _failure(around)["reason"] == "ValueError"
