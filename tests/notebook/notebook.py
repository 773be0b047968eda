"""The notebook that this product comes from: its two classes, registered as it registers them.

A program for an interpreter that has transformers 4, which alone knows these pipelines. It is told
what to do by JSON on its standard input and says what the models answer there in its last line.
In place of the Hub's weights are those of the demo, which transformers 5 has saved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import pandas as pd
import torch
import transformers
from transformers import pipeline

# As google-t5/t5-base says it: what is put before a text, and how answers are looked for.
T5_TASKS = {
    "translation_en_to_de": {
        "early_stopping": True,
        "max_length": 300,
        "num_beams": 4,
        "prefix": "translate English to German: ",
    }
}
TOKENIZER_OPTIONS = ("pad_token", "eos_token", "unk_token", "cls_token", "sep_token",
                     "model_max_length", "model_input_names")  # fmt: skip


class Translation(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        config = context.model_config
        self.input_label = config.get("input_label", "prompt")
        task = f"translation_{config.get('lang_from', 'en')}_to_{config.get('lang_to', 'de')}"
        self.pipeline = pipeline(task, model=context.artifacts["weights"])

    def predict(self, context, model_input, params=None):
        return self.pipeline(model_input[self.input_label].tolist())


class QuestionAnswering(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.text = context.model_config["model_context"]
        self.pipeline = pipeline("question-answering", model=context.artifacts["weights"])

    def predict(self, context, model_input, params=None):
        found = self.pipeline(question=model_input["question"].tolist(), context=self.text)
        return found if isinstance(found, list) else [found]


MODELS = {"translation": Translation, "question-answering": QuestionAnswering}
ARCHITECTURES = {
    "translation": transformers.T5ForConditionalGeneration,
    "question-answering": transformers.BertForQuestionAnswering,
}


def of_this_release(task: str, weights: Path) -> str:
    """A folder with the weights as this release of transformers saves them."""
    told = json.loads((weights / "tokenizer_config.json").read_text())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(weights / "tokenizer.json"),
        **{option: told[option] for option in TOKENIZER_OPTIONS if option in told},
    )
    model = ARCHITECTURES[task].from_pretrained(weights)
    if task == "translation":
        model.config.task_specific_params = T5_TASKS
    for saved in (tokenizer, model):
        saved.save_pretrained(task)
    return task


def register(task: str, *, name: str, weights: str, config: dict, rows: list, requirements: list):
    """Register a model; what it answers when it is loaded here."""
    questions = pd.DataFrame(rows)
    info = mlflow.pyfunc.log_model(
        name="model",
        python_model=MODELS[task](),
        artifacts={"weights": of_this_release(task, Path(weights))},
        model_config=config,
        input_example=questions,
        pip_requirements=requirements,
        registered_model_name=name,
    )
    return mlflow.pyfunc.load_model(info.model_uri).predict(questions)


if __name__ == "__main__":
    told = json.load(sys.stdin)
    mlflow.set_tracking_uri(told["uri"])
    answers = {task: register(task, **model) for task, model in told["models"].items()}
    releases = {"torch": torch.__version__, "transformers": transformers.__version__}
    sys.stdout.write(json.dumps({"answers": answers, **releases}))
