"""What people read: every text of the program, by a few rules."""

from __future__ import annotations

import re

from checks.texts import Text, texts
from gateway.errors import all_errors

PROBLEMS = {error.__name__ for error in all_errors()}
# The default of an option follows its sentence.
DEFAULT = re.compile(r" \[[^]]+\]$")


def faults(text: Text) -> list[str]:
    """What isn't as it should be."""
    words = text.words
    found = []
    if "(s)" in words:
        found.append("(s) is for forms")
    if re.search(r"!|[Pp]lease|Value error|Oops|Invalid ", words):
        found.append("says nothing, or it too loudly")
    if text.kind == "raise" and text.by in PROBLEMS and not re.match(r"[A-Z`{]", words):
        found.append("is no sentence: its beginning")
    sentences = text.kind == "help" or text.by in PROBLEMS
    if sentences and not re.search(r"[.…}]$", DEFAULT.sub("", words.rstrip())):
        found.append("is no sentence: its end")
    return found


def test_what_people_read_is_said_in_sentences() -> None:
    """Details of problems and descriptions begin and end as sentences, and nothing is for forms.
    Of another kind: add a rule here, or read the list of `python -m checks.texts`."""
    said = list(texts())
    assert {text.kind for text in said} == {"raise", "log", "say", "help"}
    assert [(text.where, text.words, *faults(text)) for text in said if faults(text)] == []
