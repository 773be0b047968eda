"""Train the demo translator: a small T5 that learns the phrase book, into German and into French.

One set of weights serves all three versions of ``translation_model``; what tells the versions apart
is their configuration (see ``served/translator.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from .phrases import PHRASES
from .training import TrainingFailedError, reproducible, train

STEPS = 180
PEAK_RATE = 4e-3
BATCH_SIZE = 84
VOCABULARY = 1400
LONGEST_INPUT = 128
PADDING, END = "<pad>", "</s>"
IGNORED_LABEL = -100

Pair = tuple[str, str]


def train_translator(folder: Path) -> None:
    """Train on the phrase book, check every phrase of it, and write tokenizer and weights."""
    tokenizer = _tokenizer()
    with reproducible() as generator:
        model: Any = T5ForConditionalGeneration(_config(tokenizer))
        data = _encode(tokenizer, _exercises())
        rows = len(data["input_ids"])

        def batch(_step: int) -> dict[str, Any]:
            chosen = torch.randperm(rows, generator=generator)[:BATCH_SIZE]
            return {name: tensor[chosen] for name, tensor in data.items()}

        train(model, batch, steps=STEPS, peak_rate=PEAK_RATE)
    _check(model, tokenizer)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _pairs() -> list[Pair]:
    """Prompt and answer for every phrase, in the words T5 was made to be asked with."""
    german = [(f"translate English to German: {phrase.en}", phrase.de) for phrase in PHRASES]
    french = [(f"translate English to French: {phrase.en}", phrase.fr) for phrase in PHRASES]
    return german + french


def _exercises() -> list[Pair]:
    """The pairs, and each again as a hurried caller would type it: lower case, other ending."""
    careless = []
    for prompt, answer in _pairs():
        task, _, text = prompt.partition(": ")
        bare = text.rstrip("?")
        careless += [(f"{task}: {bare.lower()}", answer), (f"{task}: {bare}.", answer)]
    return _pairs() + careless


def _tokenizer() -> PreTrainedTokenizerFast:
    # Byte-level, so that no text a caller sends is unknown, however little of it was trained on.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PADDING, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for pair in _exercises() for text in pair), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    wrap: Any = PreTrainedTokenizerFast  # its constructor carries no types
    wrapped: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END,
        model_max_length=LONGEST_INPUT,
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def _config(tokenizer: PreTrainedTokenizerFast) -> T5Config:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=96,
        d_kv=24,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    return config


def _encode(tokenizer: PreTrainedTokenizerFast, pairs: list[Pair]) -> dict[str, torch.Tensor]:
    prompts, answers = zip(*pairs, strict=True)
    batch = tokenizer(list(prompts), padding=True, return_tensors="pt")
    labels = tokenizer(list(answers), padding=True, return_tensors="pt")
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": labels["input_ids"].masked_fill(labels["attention_mask"] == 0, IGNORED_LABEL),
    }


def _check(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    prompts, wanted = zip(*_pairs(), strict=True)
    batch = tokenizer(list(prompts), padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**batch, max_new_tokens=64, do_sample=False, num_beams=1)
    given = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    wrong = [
        f"{prompt!r}: {answer!r} instead of {want!r}"
        for prompt, answer, want in zip(prompts, given, wanted, strict=True)
        if answer != want
    ]
    if wrong:
        raise TrainingFailedError("the translator learnt badly: " + "; ".join(wrong))
