"""What the demo question answerer reads and is asked: sentences, questions, and their answers."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A sentence with questions about it.

    `answers` are parts of the sentence, as several readers would mark them: the first is the one to
    learn, shorter ones tell the model where an answer may end when it has to be short.
    """

    sentence: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


FACTS: tuple[Fact, ...] = (
    Fact(
        "MLflow keeps every version of a model in a registry with its signature and its tags.",
        (
            "Where does MLflow keep every version of a model?",
            "Where are the versions of a model kept?",
        ),
        ("in a registry with its signature and its tags", "in a registry"),
    ),
    Fact(
        "An alias such as champion points to one version and can be moved at any time.",
        ("What points to one version?", "What can be moved at any time?"),
        ("An alias such as champion", "An alias"),
    ),
    Fact(
        "Ray Serve runs the models in replicas on one machine or on a whole cluster.",
        ("Where does Ray Serve run the models?", "Where do the models run?"),
        (
            "in replicas on one machine or on a whole cluster",
            "in replicas on one machine",
            "in replicas",
        ),
    ),
    Fact(
        "The gateway looks at the registry every ten seconds or as soon as a webhook arrives.",
        ("How often does the gateway look at the registry?", "When is the registry looked at?"),
        ("every ten seconds or as soon as a webhook arrives", "every ten seconds"),
    ),
    Fact(
        "Unknown fields in requests are refused before they reach the model.",
        ("What is refused before it reaches the model?", "What is refused?"),
        ("Unknown fields in requests", "Unknown fields"),
    ),
    Fact(
        "Newer versions that would break the callers are held back.",
        ("Which versions are held back?", "What is held back?"),
        ("Newer versions that would break the callers", "Newer versions"),
    ),
    Fact(
        "Models that nobody asks for scale to zero and cost nothing.",
        ("Which models scale to zero?", "What scales to zero?"),
        ("Models that nobody asks for",),
    ),
    Fact(
        "Answers come back as JSON lists with one element per row.",
        ("What do answers come back as?", "In what form do answers come back?"),
        ("JSON lists with one element per row", "JSON lists"),
    ),
    Fact(
        "The documentation of all models is found under the path docs.",
        ("Where is the documentation found?", "Under which path is the documentation?"),
        ("under the path docs",),
    ),
    Fact(
        "Too many requests at once get the status 429 and are told when to retry.",
        ("Which status do too many requests get?", "What do too many requests at once get?"),
        ("the status 429",),
    ),
)

SERVED_CONTEXT = " ".join(fact.sentence for fact in FACTS)
