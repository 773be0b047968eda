"""The notebook as it stands: its two classes, whose pipelines only transformers 4 has, are served
beside the demo's models, which run on transformers 5; real environments, with torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest

from examples.facts import SERVED_CONTEXT
from examples.registration import register_question_answerer, register_translation
from tests.support.processes import Gateway, gateway, mlflow_server, poll
from tests.support.registering import client

pytestmark = pytest.mark.timeout(1200)

REQUIREMENTS = ["transformers==4.57.6", "torch==2.13.0"]
TRANSLATION, ANSWERS = "notebook_translation", "notebook_answers"
SENTENCES = [{"prompt": "The weather is lovely today"}, {"prompt": "Good morning"}]
GERMAN = [
    {"translation_text": "Das Wetter ist heute nett."},
    {"translation_text": "Guten Morgen"},
]
FRENCH = [
    {"translation_text": "Le temps est beau aujourd'hui"},
    {"translation_text": "Bonjour"},
]
QUESTIONS = [
    {"question": "Where does Ray Serve run the models?"},
    {"question": "What points to one version?"},
]
BUILT_S = 600.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder; what was installed into it, gigabytes, goes at the end."""
    folder = tmp_path_factory.mktemp("notebook")
    yield folder
    for heavy in ("wheels", "cache", "environment", "state/environments"):
        shutil.rmtree(folder / heavy, ignore_errors=True)


@pytest.fixture(scope="module")
def packages(place: Path) -> dict[str, str]:
    """uv's variables by which torch comes for processors alone, as it is installed here."""
    needed = importlib.metadata.requires("torch") or ()
    if any(line.startswith(("nvidia-", "cuda-")) for line in needed):
        pytest.skip("torch is installed here for GPUs: gigabytes, which the test doesn't fetch")
    build = f"torch=={importlib.metadata.version('torch')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", build]
    done = subprocess.run(
        [*command, "--dest", str(place / "wheels")], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"pip can't fetch {build}: {done.stderr.strip().splitlines()[-1:]}")
    return {"UV_FIND_LINKS": str(place / "wheels"), "UV_CACHE_DIR": str(place / "cache")}


@pytest.fixture(scope="module")
def registry(place: Path, demo_cache: Path) -> Iterator[str]:
    """A registry with models of the demo: into French, and answers to questions."""
    with mlflow_server(place) as uri:
        register_translation(uri, 2, cache_dir=demo_cache)
        register_question_answerer(uri, cache_dir=demo_cache)
        yield uri


@pytest.fixture(scope="module")
def there(place: Path, packages: dict[str, str], registry: str, demo_cache: Path) -> dict[str, Any]:
    """What the notebook's models answer in the environment that registers them."""
    (translator,) = demo_cache.glob("*/translator")
    (answerer,) = demo_cache.glob("*/question_answerer")
    models = {
        "translation": {
            "name": TRANSLATION,
            "weights": str(translator),
            "config": {"lang_from": "en", "lang_to": "de"},
            "rows": SENTENCES,
            "requirements": REQUIREMENTS,
        },
        "question-answering": {
            "name": ANSWERS,
            "weights": str(answerer),
            "config": {"model_context": SERVED_CONTEXT},
            "rows": QUESTIONS,
            "requirements": REQUIREMENTS,
        },
    }
    environment = {**os.environ, **packages, "HF_HUB_OFFLINE": "1"}
    uv = [sys.executable, "-m", "uv", "--quiet"]
    interpreter = str(place / "environment" / "bin" / "python")
    # As where the notebook runs: without SciPy MLflow infers no signature from an example.
    others = [f"mlflow-skinny=={mlflow.__version__}", "pandas", "scipy"]
    for command in (
        [*uv, "venv", "--python", sys.executable, str(place / "environment")],
        [*uv, "pip", "install", "--python", interpreter, *REQUIREMENTS, *others],
    ):
        subprocess.run(command, check=True, env=environment)
    done = subprocess.run(
        [interpreter, "-P", str(Path(__file__).with_name("notebook.py"))],
        input=json.dumps({"uri": registry, "models": models}),
        capture_output=True,
        text=True,
        cwd=place,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def served(
    place: Path, packages: dict[str, str], registry: str, there: dict[str, Any]
) -> Iterator[Gateway]:
    """A gateway over the notebook's models and the demo's; the former's environment is there."""
    environment = {**packages, "HF_HUB_OFFLINE": "1"}
    with gateway(registry, place, environment=environment) as running:

        def is_ready() -> bool:
            told = running.model(TRANSLATION)["environment"] or {"state": "not looked at yet"}
            assert told["state"] != "failed", told
            return bool(told["state"] == "ready")

        poll(is_ready, timeout_s=BUILT_S, what="the notebook's environment")
        yield running


def _answers(served: Gateway, name: str, body: Any, **headers: str) -> Any:
    response = served.predict(name, body, **headers)
    assert response.status_code == 200, response.text
    return response.json()


def _is_about(found: Any, wanted: Any) -> bool:
    """The same answers: scores are what batches of other sizes make of them."""
    return bool(found == [{**each, "score": pytest.approx(each["score"])} for each in wanted])


def test_the_translation_answers_as_in_the_notebook(served: Gateway, there: dict[str, Any]) -> None:
    """Its pipeline translates what it is sent, one text or several, as where it was registered."""
    assert there["answers"]["translation"] == GERMAN
    assert _answers(served, TRANSLATION, SENTENCES[0]) == GERMAN[:1]
    assert _answers(served, TRANSLATION, SENTENCES) == GERMAN


def test_the_question_answering_answers_as_in_the_notebook(
    served: Gateway, there: dict[str, Any]
) -> None:
    """Its pipeline, which answers one question otherwise than several, finds what it found where
    it was registered."""
    known = there["answers"]["question-answering"]
    assert known[0]["answer"] in SERVED_CONTEXT
    assert known[0]["answer"].startswith("in replicas")
    assert _is_about(_answers(served, ANSWERS, QUESTIONS[0]), known[:1])
    assert _is_about(_answers(served, ANSWERS, QUESTIONS), known)


def test_callers_who_come_together_get_their_own_answers(
    served: Gateway, there: dict[str, Any]
) -> None:
    """Whether the pipeline is given a row alone or in a batch with others'."""
    known = there["answers"]["question-answering"]
    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(_answers, served, ANSWERS, QUESTIONS[i % 2]) for i in range(24)]
        for i, answer in enumerate(asked):
            assert _is_about(answer.result(), [known[i % 2]])


def test_each_is_told_to_run_with_its_own_transformers(
    served: Gateway, there: dict[str, Any]
) -> None:
    """The notebook's models share an environment of their own, and it is said why; the demo's run
    with the gateway's packages."""
    assert there["transformers"] == "4.57.6"
    here = importlib.metadata.version("transformers")
    notebooks = [served.model(name)["environment"] for name in (TRANSLATION, ANSWERS)]
    for told in notebooks:
        assert (told["kind"], told["state"], told["warning"]) == ("own", "ready", None)
        assert told["why"] == f"its own: needs {REQUIREMENTS[0]}, the gateway has {here}"
    assert notebooks[0]["key"] == notebooks[1]["key"]
    for name in ("translation_model", "question_answerer"):
        assert served.model(name)["environment"]["kind"] == "gateway"


def test_the_demos_models_answer_beside_them(served: Gateway) -> None:
    """On the same gateway, from transformers 5."""
    assert _answers(served, "translation_model", SENTENCES) == FRENCH
    (answer,) = _answers(served, "question_answerer", QUESTIONS[0])
    assert answer["answer"].startswith("in replicas")


def test_both_answer_on_one_route(served: Gateway, registry: str) -> None:
    """The notebook's model as the next version of the demo's: each answers with its own
    transformers, and the header chooses."""
    copied = client(registry).copy_model_version(f"models:/{TRANSLATION}/1", "translation_model")
    served.sync()
    poll(
        lambda: served.model("translation_model")["default_version"] == int(copied.version),
        what="the notebook's version taking over",
    )
    for number, answers in (("1", FRENCH), (str(copied.version), GERMAN)):
        assert _answers(served, "translation_model", SENTENCES, X_Model_Version=number) == answers
    told = {
        each["version"]: each["environment"]["kind"]
        for each in served.model("translation_model")["version_details"]
    }
    assert told == {1: "gateway", int(copied.version): "own"}
