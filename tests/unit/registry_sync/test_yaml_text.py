"""YAML of others is parsed, or refused at once."""

from __future__ import annotations

import pytest

from registry_sync.yaml_text import BrokenYaml, parsed

REPEATED = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


def test_what_programs_write_is_parsed() -> None:
    """With the lines that they repeat by an alias; as values, or as it is written."""
    text = "a: &id001\n- 3.10\n- null\nb: *id001\nc: {'<<': 1}\n"
    assert parsed(text) == {"a": [3.1, None], "b": [3.1, None], "c": {"<<": 1}}
    assert parsed(text, texts_only=True)["b"] == ["3.10", "null"]


@pytest.mark.parametrize("texts_only", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: *a",
        "a: &a [*a]",
        "&a {x: &a [*a]}",
        "a: 1\n---\nb: 2",
        "[" * 500_000,
        "- " * 500_000,
        "? " * 500_000,
        "{a: " * 200_000,
        REPEATED,
        "a: &a {x: 1}\nb: {<<: *a}",
        "a: &a " + "x" * 100_000 + "\nb: [" + "*a ," * 1000 + "]",
        "!!python/object/apply:os.getcwd []",
    ],
    ids="{:.12}".format,
)
@pytest.mark.timeout(20)
def test_what_nobody_writes_is_refused_at_once(text: str, texts_only: bool) -> None:
    """Nesting without end, what refers to itself, and what a few lines would repeat a million
    times."""
    if texts_only and text.startswith("!!python"):
        assert parsed(text, texts_only=True) == []
        return
    with pytest.raises(BrokenYaml):
        parsed(text, texts_only=texts_only)
