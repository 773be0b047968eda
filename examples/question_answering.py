"""Train the demo question answerer: a small BERT that finds answers in the sentences of `facts`.

In every second step it reads the sentences in a new order, so that it learns to look for the one
that was asked about and not to know a position by heart.
"""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

from .facts import FACTS, SERVED_CONTEXT, Fact
from .training import TrainingFailedError, reproducible, train

STEPS = 200
PEAK_RATE = 2e-3
WINDOW = 256
# How much of the answers' probability goes to the first one, where a fact has shorter ones too.
FIRST_ANSWER_SHARE = 0.8
# In this order they get the numbers 0 to 3.
SPECIAL_TOKENS = PADDING, UNKNOWN, FIRST, SEPARATOR = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


class Exercise(NamedTuple):
    """A question, the text to look in, and the answers in it with their probabilities."""

    question: str
    context: str
    answers: tuple[tuple[str, float], ...]


def train_question_answerer(folder: Path) -> None:
    """Train on the facts, check every question on the served context, write the results."""
    tokenizer = _tokenizer()
    with reproducible() as generator:
        model = _SoftLabelled(BertForQuestionAnswering(_config(tokenizer)))

        def batch(step: int) -> dict[str, Any]:
            context = _shuffled(generator) if step % 2 else SERVED_CONTEXT
            return _encode(tokenizer, _exercises(context))

        train(model, batch, steps=STEPS, peak_rate=PEAK_RATE)
    _check(model.reader, tokenizer)
    tokenizer.save_pretrained(folder)
    model.reader.save_pretrained(folder)


class _SoftLabelled(torch.nn.Module):
    """A question answering model whose loss takes several answers with their probabilities.

    transformers' own loss knows one start and one end only.
    """

    def __init__(self, reader: BertForQuestionAnswering) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, starts: torch.Tensor, ends: torch.Tensor, **inputs: torch.Tensor) -> Any:
        output: Any = self.reader(**inputs)
        loss = torch.nn.functional.cross_entropy(output.start_logits, starts)
        output.loss = loss + torch.nn.functional.cross_entropy(output.end_logits, ends)
        return output


def _shuffled(generator: torch.Generator) -> str:
    order = torch.randperm(len(FACTS), generator=generator).tolist()
    return " ".join(FACTS[position].sentence for position in order)


def _exercises(context: str) -> list[Exercise]:
    return [_exercise(fact, question, context) for fact in FACTS for question in fact.questions]


def _exercise(fact: Fact, question: str, context: str) -> Exercise:
    first, *shorter = fact.answers
    if not shorter:
        return Exercise(question, context, ((first, 1.0),))
    share = (1 - FIRST_ANSWER_SHARE) / len(shorter)
    return Exercise(
        question, context, ((first, FIRST_ANSWER_SHARE), *((text, share) for text in shorter))
    )


def _vocabulary() -> dict[str, int]:
    """Every word of the facts as one token, and single letters for what else callers may ask.

    Counted out here because tokenizers' own WordPieceTrainer gives another vocabulary on each run.
    """
    texts = [SERVED_CONTEXT, *(question for fact in FACTS for question in fact.questions)]
    words = re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())
    letters = [*string.ascii_lowercase, *string.digits]
    tokens = [*SPECIAL_TOKENS, *words, *letters, *(f"##{letter}" for letter in letters)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(_vocabulary(), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {SEPARATOR}",
        pair=f"{FIRST} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (FIRST, SEPARATOR)],
    )
    wrap: Any = PreTrainedTokenizerFast  # its constructor carries no types
    wrapped: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        cls_token=FIRST,
        sep_token=SEPARATOR,
        model_max_length=WINDOW,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    return wrapped


def _config(tokenizer: PreTrainedTokenizerFast) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=WINDOW,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # BERT's usual 0.02 is for wide layers; with it these need three times the steps.
        initializer_range=0.08,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenize(tokenizer: PreTrainedTokenizerFast, exercises: list[Exercise]) -> Any:
    return tokenizer(
        [exercise.question for exercise in exercises],
        [exercise.context for exercise in exercises],
        padding=True,
        return_tensors="pt",
    )


def _encode(
    tokenizer: PreTrainedTokenizerFast, exercises: list[Exercise]
) -> dict[str, torch.Tensor]:
    batch = _tokenize(tokenizer, exercises)
    starts = torch.zeros(batch["input_ids"].shape)
    ends = torch.zeros_like(starts)
    for row, exercise in enumerate(exercises):
        for answer, share in exercise.answers:
            at = exercise.context.index(answer)
            starts[row, batch.char_to_token(row, at, 1)] += share
            ends[row, batch.char_to_token(row, at + len(answer) - 1, 1)] += share
    return {**batch, "starts": starts, "ends": ends}


def _check(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerFast) -> None:
    exercises = _exercises(SERVED_CONTEXT)
    batch = _encode(tokenizer, exercises)
    starts, ends = batch.pop("starts"), batch.pop("ends")
    with torch.inference_mode():
        output = model(**batch)
    right = (output.start_logits.argmax(-1) == starts.argmax(-1)) & (
        output.end_logits.argmax(-1) == ends.argmax(-1)
    )
    wrong = [
        exercise.question for exercise, ok in zip(exercises, right.tolist(), strict=True) if not ok
    ]
    if wrong:
        raise TrainingFailedError("the question answerer learnt badly: " + "; ".join(wrong))
