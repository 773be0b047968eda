"""The story of the product, step by step, as the README tells it: real MLflow server, real Ray,
real HTTP, the demo's own models.

The steps have numbers because each begins where the one before it ended: they are run in order.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from examples.registration import (
    register_domain_name,
    register_question_answerer,
    register_translation,
)
from tests.support.processes import Gateway, poll
from tests.support.registering import client

MODEL = "translation_model"
SENTENCE = {"prompt": "The weather is lovely today"}
GERMAN = [{"translation_text": "Das Wetter ist heute nett."}]
FRENCH = [{"translation_text": "Le temps est beau aujourd'hui"}]
QUESTIONS = (
    "Where does MLflow keep every version of a model?",
    "What points to one version?",
    "Where does Ray Serve run the models?",
)


@pytest.fixture(scope="module")
def uri(mlflow_uri: str) -> str:
    return mlflow_uri


@pytest.fixture(scope="module")
def served(uri: str, demo_cache: Path, shared_gateway: Gateway) -> Gateway:
    """A gateway over a registry with versions 1 and 2 of the translation model."""
    for version in (1, 2):
        register_translation(uri, version, cache_dir=demo_cache)
    client(uri).set_registered_model_tag(MODEL, "modelmux.max_loaded_versions", "2")
    shared_gateway.sync()
    return shared_gateway


@pytest.fixture(scope="module")
def answerer(served: Gateway, uri: str, demo_cache: Path) -> str:
    """A model that is registered while the gateway runs; the document's ETag before it was."""
    etag: str = served.client.get("/openapi.json").headers["ETag"]
    register_question_answerer(uri, cache_dir=demo_cache)
    served.sync()
    return etag


def _differences(problem: dict[str, Any]) -> set[tuple[str, str]]:
    return {(d["pointer"], d["change"]) for d in problem["differences"]}


def test_1_every_selector_picks_its_version(served: Gateway, uri: str) -> None:
    """The default, both headers, an alias and `latest` all answer from the version they name."""
    by_default = served.predict(MODEL, SENTENCE)
    assert (by_default.status_code, by_default.json()) == (200, FRENCH)
    assert by_default.headers["X-Model-Version"] == "2"
    assert by_default.headers.get_list("X-Request-ID")[1:] == []

    client(uri).set_registered_model_alias(MODEL, "german", "1")
    served.sync()
    for header in ("X-Model-Version", "serve_multiplexed_model_id"):
        for selector, number, answer in (
            ("1", "1", GERMAN), ("2", "2", FRENCH), ("german", "1", GERMAN), ("latest", "2", FRENCH)
        ):  # fmt: skip
            response = served.client.post(
                f"/models/{MODEL}/predict", json=SENTENCE, headers={header: selector}
            )
            assert response.json() == answer, (header, selector)
            assert response.headers["X-Model-Version"] == number


def test_2_a_breaking_version_is_held_until_its_tag_lets_it_through(
    served: Gateway, uri: str, demo_cache: Path
) -> None:
    """The newest version with another column gets 409 and is no default, until it is accepted."""
    register_translation(uri, 3, cache_dir=demo_cache)
    served.sync()
    refused = served.predict(MODEL, SENTENCE, X_Model_Version="3")
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert (problem["code"], problem["requested_version"], problem["default_version"]) == (
        "signature_mismatch", 3, 2,
    )  # fmt: skip
    assert ("/text_to_translate", "added") in _differences(problem)

    detail = served.model(MODEL)
    assert detail["default_version"] == 2
    assert detail["held"]["version"] == 3
    assert "modelmux.accept_breaking" in detail["held"]["reason"]
    assert served.predict(MODEL, SENTENCE).json() == FRENCH

    client(uri).set_model_version_tag(MODEL, "3", "modelmux.accept_breaking", "true")
    served.sync()
    poll(lambda: served.model(MODEL)["default_version"] == 3, what="version 3 taking over")
    accepted = served.predict(MODEL, {"text_to_translate": SENTENCE["prompt"]})
    assert accepted.json() == GERMAN
    for old in ("1", "2"):
        assert served.predict(MODEL, SENTENCE, X_Model_Version=old).status_code == 409

    client(uri).delete_model_version(MODEL, "3")
    served.sync()
    # What was the default before takes over, with the contract that it had.
    assert served.predict(MODEL, SENTENCE).json() == FRENCH
    assert served.model(MODEL)["default_version"] == 2
    told = served.client.get(f"/models/{MODEL}/history").json()["entries"]
    assert [entry["event"] for entry in told[:3]] == ["fell_back", "accepted", "held"]


def test_3_a_model_registered_while_it_runs_is_served_and_documented(
    served: Gateway, answerer: str
) -> None:
    """A new model has its route, schemas and docs after a sync, with no restart."""
    before = {"If-None-Match": answerer}
    document = served.client.get("/openapi.json", headers=before)
    assert document.status_code == 200
    now = {"If-None-Match": document.headers["ETag"]}
    assert served.client.get("/openapi.json", headers=now).status_code == 304
    operation = document.json()["paths"]["/models/question_answerer/predict"]["post"]
    questions = [{"question": q} for q in QUESTIONS]
    answers = served.predict("question_answerer", questions)
    assert answers.status_code == 200, answers.text
    whole = [row["answer"] for row in answers.json()]
    assert len(whole) == 3
    one_by_one = [
        served.predict("question_answerer", question).json()[0]["answer"] for question in questions
    ]
    assert whole == one_by_one

    short = served.predict(
        "question_answerer", {"inputs": questions, "params": {"max_answer_len": 1}}
    )
    assert short.status_code == 200
    assert [row["answer"] for row in short.json()] != whole
    unknown = served.predict("question_answerer", {"inputs": questions, "params": {"nope": 1}})
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["pointer"] == "/params/nope"
    assert operation["requestBody"]["content"]["application/json"]["example"]


def test_4_an_alias_moves_without_an_error_or_a_cold_wait(served: Gateway, uri: str) -> None:
    """While the champion moves from 1 to 2 every answer is right and none waits for a load."""
    registry = client(uri)
    registry.set_registered_model_alias(MODEL, "champion", "1")
    served.sync()
    poll(lambda: served.model(MODEL)["default_version"] == 1, what="the champion taking over")
    assert served.predict(MODEL, SENTENCE).json() == GERMAN
    answers, loading_ms = _while_asking(
        served, lambda: registry.set_registered_model_alias(MODEL, "champion", "2")
    )
    assert set(answers) == {(200, "1"), (200, "2")}
    assert answers.index((200, "2")) == answers.count((200, "1")), "it went back and forth"
    assert max(loading_ms) < 100.0, "somebody waited while it was loaded"


def _while_asking(served: Gateway, change: Any) -> tuple[list[tuple[int, str]], list[float]]:
    """Answers (status, version) in order while `change` happens, and how many milliseconds each
    of them waited for its version to be loaded."""
    answers: list[tuple[int, str]] = []
    loading_ms: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=60.0) as caller:
            while not stop.is_set():
                response = caller.post(f"/models/{MODEL}/predict", json=SENTENCE)
                answers.append((response.status_code, response.headers.get("X-Model-Version", "")))
                told = re.search(r"\bload;dur=([\d.]+)", response.headers["Server-Timing"])
                # Straight to the version's process: nothing was waited for.
                loading_ms.append(0.0 if told is None else float(told[1]))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        poll(lambda: len(answers) > 5, what="the first answers")
        change()
        served.sync()
        poll(lambda: answers[-1] == (200, "2"), what="version 2 answering")
        seen = len(answers)
        poll(lambda: len(answers) > seen + 5, what="more answers")
    finally:
        stop.set()
        asking.join()
    return answers, loading_ms


def test_5_the_least_recently_used_version_makes_room(served: Gateway, uri: str) -> None:
    """With room for two versions, using three in turn evicts and never fails a request."""
    registry = client(uri)
    fourth = str(registry.copy_model_version(f"models:/{MODEL}/1", MODEL).version)
    served.sync()
    for number, answer in (("1", GERMAN), ("2", FRENCH), (fourth, GERMAN), ("1", GERMAN)):
        response = served.predict(MODEL, SENTENCE, X_Model_Version=number)
        assert (response.status_code, response.json()) == (200, answer)
        assert response.headers["X-Model-Version"] == number
    assert served.log.read_text().count(f"{MODEL} version 1 loaded in") >= 2, (
        "version 1 was never evicted"
    )
    registry.delete_model_version(MODEL, fourth)
    served.sync()


def test_6_the_document_is_valid_and_typed(served: Gateway, answerer: str) -> None:
    """/openapi.json is valid OpenAPI 3.1 with one typed, documented path per model."""
    document = served.client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    for name in (MODEL, "question_answerer"):
        operation = document["paths"][f"/models/{name}/predict"]["post"]
        assert "X-Model-Version" in {p.get("name") for p in operation["parameters"]}
        assert {"409", "422", "503"} <= operation["responses"].keys()
        assert f"{name}.Request" in document["components"]["schemas"]
    single = served.client.get(f"/models/{MODEL}/openapi.json").json()
    OpenAPIV31SpecValidator(single).validate()
    assert list(single["paths"]) == [f"/models/{MODEL}/predict"]


def test_7_what_is_deleted_is_gone(served: Gateway, uri: str, answerer: str) -> None:
    """A deleted version is version_not_found, a deleted model model_not_found."""
    registry = client(uri)
    registry.delete_model_version(MODEL, "1")
    served.sync()
    gone = served.predict(MODEL, SENTENCE, X_Model_Version="1")
    assert (gone.status_code, gone.json()["code"]) == (404, "version_not_found")
    registry.delete_registered_model(MODEL)
    served.sync()
    missing = served.predict(MODEL, SENTENCE)
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
    assert served.predict("question_answerer", {"question": QUESTIONS[0]}).status_code == 200


def test_8_a_model_runs_with_the_packages_that_it_pins(served: Gateway, uri: str) -> None:
    """It answers from the release that it was logged with, which isn't the gateway's, once that is
    installed; the list and the page say so."""
    register_domain_name(uri)
    served.sync()

    def answers() -> Any:
        response = served.predict("domain_name", {"name": "bücher.example"})
        if response.status_code == 503 and "being built, for" in response.text:
            return None
        assert response.status_code == 200, response.text
        return response.json()

    answered = poll(answers, timeout_s=300.0, what="its packages")
    assert answered == [{"ascii": "xn--bcher-kva.example", "idna": "3.7"}]

    def told_as_ready() -> Any:
        environment = served.model("domain_name")["environment"]
        return environment if environment["state"] == "ready" else None

    told = poll(told_as_ready, what="what is told of them")
    assert told["kind"] == "own"
    assert told["why"].startswith("its own: needs idna==3.7, the gateway has ")
    assert told["why"] in served.client.get("/catalog/domain_name").text
