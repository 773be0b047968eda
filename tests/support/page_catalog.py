"""A catalog to look at, and models that answer it in this process: no Ray, no MLflow server.

For the tests of the catalog page, and for its pictures.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI

from gateway.catalog import (
    Catalog,
    HeldVersion,
    ModelOptions,
    ServedModel,
    Shadow,
    compare_signatures,
)
from gateway.errors import GatewayError
from gateway.http.access_control import Access
from gateway.http.app import create_app
from gateway.http.placement import Placement
from gateway.http.predict.body import HttpLimits
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from gateway.security.api_keys import Keyring
from gateway.shadow_figures import Disagreement, Outcome, ShadowFigures, ShadowPair
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed

HOSTILE = '<img src=x onerror="window.harmed=1"> & \'quotes\' "more" ?#% Größe 😀'
HELD, TYPES, TENSOR, TUPLE = "churn_risk", "all types", "pixels", "two values"
PHOTO = "photo"
MLFLOW_URL = "https://mlflow.example.com/ui"
SHADOWED = "delivery_time"
DAY_MS = 1_760_000_000_000

Answer = Callable[[Mapping[str, Any], int], Mapping[str, Any]]


def _translation() -> ServedModel:
    german = signature(("prompt", "string"), outputs=(("translation_text", "string"),))
    renamed = signature(("text_to_translate", "string"), outputs=(("translation_text", "string"),))
    return served(
        version(1, german, description="To German.", **_facts("transformers", 0)),
        version(2, german, description="To French.", **_facts("transformers", 3)),
        version(3, renamed, description="To German, next generation.", **_facts("transformers", 9)),
        default=2,
        name="translation_model",
        description="Translates sentences from English. Small enough for a laptop.",
        aliases={"champion": 2, "german": 1, "日本": 1},
    )


def _delivery() -> ServedModel:
    columns = signature(
        ("zone", "string"), ("items", "long"), ("distance_km", "double"), ("express", "boolean"),
        ("rain_mm", "double", False), ("ordered_at", "datetime", False),
        outputs=(("minutes", "double"), ("late_risk", "double")),
    )  # fmt: skip
    example = {"zone": "harbour", "items": 3, "distance_km": 4.2, "express": False}
    return served(
        version(1, columns, example=example, **_facts("sklearn", 1)),
        version(2, columns, example=example, **_facts("sklearn", 6)),
        name=SHADOWED,
        description="Minutes from the order to the door, and the risk of being late.",
        aliases={"champion": 2, "challenger": 1},
        shadow=Shadow(number=1, percent=25.0),
        options=ModelOptions(shadow="challenger:25"),
    )


def compared() -> ShadowFigures:
    """What an hour of requests to the shadow of `SHADOWED` came to."""
    pair = ShadowPair(default=2, default_fingerprint="f2", shadow=1, shadow_fingerprint="f1")
    began = DAY_MS / 1000
    figures = ShadowFigures(pair=pair, since=began)
    for second in range(0, 3600, 10):
        outcome: Outcome = "different" if second % 70 == 0 or 1800 < second < 2100 else "equal"
        figures.note(outcome, began + second)
        figures.default_s.observe(0.004)
        figures.shadow_s.observe(0.006)
    for name, equal, off in (("minutes", 301, 1.5), ("late_risk", 344, 0.01)):
        column = figures.column(name)
        assert column is not None
        column.rows, column.equal = 360, equal
        for place in range(360):
            column.differences.observe(off * (place - equal) if place > equal else 0.0)
    for number in range(3):
        figures.keep(
            Disagreement(
                at=began + 600 * number,
                request_id=f"9f1c2a7be4d0{number}",
                row=0,
                columns=("minutes",),
                default={"minutes": 31.5, "late_risk": 0.26},
                shadow={"minutes": 33.0 + number, "late_risk": 0.26},
                inputs={"zone": HOSTILE, "items": 3} if number else None,
            )
        )
    return figures


def _question() -> ServedModel:
    text = signature(
        ("question", "string"),
        ("lang", "string", False),
        outputs=(("answer", "string"), ("score", "float")),
        params=(
            {"name": "max_answer_len", "type": "long", "default": 15, "shape": None},
            {"name": "doc_stride", "type": "long", "default": 128, "shape": None},
        ),
    )
    example = {"question": "Where does Ray Serve run the models?"}
    return served(
        version(1, text, example=example, streamable=True, **_facts("transformers", 2)),
        name="question_answerer",
        description="Finds the answer to a question in the handbook.",
    )


def _held() -> ServedModel:
    before = signature(
        ("age", "integer"), ("plan", "string"), ("monthly_spend", "float"),
        outputs=(("risk", "double"),),
    )  # fmt: skip
    after = signature(
        ("age", "integer"), ("plan", "string"), ("monthly_spend", "string"), ("country", "string"),
        outputs=(("risk", "double"),),
    )  # fmt: skip
    differences = tuple(d.as_dict() for d in compare_signatures(before, after))
    return served(
        version(6, before, **_facts("xgboost", 4)),
        version(7, after, **_facts("xgboost", 8)),
        default=6,
        name=HELD,
        description="How likely a customer is to leave within a quarter.",
        held=HeldVersion(
            number=7,
            reason="It would break callers of version 6.",
            differences=differences,
        ),
    )


def _all_types() -> ServedModel:
    nested = {"type": "object", "properties": {
        "id": {"type": "integer", "required": True},
        "tags": {"type": "array", "items": {"type": "string"}, "required": False},
    }}  # fmt: skip
    columns = [
        *({"name": kind, "type": kind, "required": kind == "string"} for kind in (
            "boolean", "integer", "long", "float", "double", "string", "binary", "datetime")),
        {"name": "array", "type": "array", "items": {"type": "long"}, "required": False},
        {"name": "object", "required": False, **nested},
        {"name": "map", "type": "map", "values": {"type": "string"}, "required": False},
    ]  # fmt: skip
    text = orjson.dumps(columns).decode()
    whole = orjson.dumps({"inputs": text, "outputs": text, "params": None}).decode()
    return served(version(1, whole), name=TYPES)


def _tensor(name: str, shape: list[int]) -> ServedModel:
    spec = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": shape}}
    out = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}
    whole = {"inputs": orjson.dumps([spec]).decode(), "outputs": orjson.dumps([out]).decode()}
    return served(version(1, orjson.dumps({**whole, "params": None}).decode()), name=name)


def _unnamed() -> ServedModel:
    inputs = orjson.dumps(
        [{"type": "double", "required": True}, {"type": "string", "required": True}]
    )
    out = orjson.dumps([{"type": "string", "required": True}])
    whole = {"inputs": inputs.decode(), "outputs": out.decode(), "params": None}
    return served(version(1, orjson.dumps(whole).decode()), name=TUPLE)


def _facts(flavor: str, day: int) -> dict[str, Any]:
    return {"flavor": flavor, "created_at_ms": DAY_MS + day * 86_400_000}


def shown() -> Catalog:
    """Models of every state and kind of signature."""
    return catalog(
        _translation(),
        _delivery(),
        _question(),
        _held(),
        _all_types(),
        _tensor(TENSOR, [-1, 2, 2]),
        _tensor(PHOTO, [-1, 224, 224, 3]),
        _unnamed(),
        served(version(1), name=HOSTILE, description="</p><script>window.harmed=1</script>"),
        ServedModel(
            name="invoice_parser",
            description="Reads totals from scanned invoices.",
            versions=(version(1, None, problem="The model has no signature."),),
            problem="Version 1: the model has no signature. Log the model with one.",
        ),
    )


def pictured() -> Catalog:
    """Those of them that look like a team's."""
    names = ("translation_model", "delivery_time", "question_answerer", HELD, "invoice_parser")
    everyday = shown().only(lambda name: name in names)
    return catalog(
        *everyday.models.values(),
        served(version(1), version(2), name="basket_size", description="Items of the next order."),
        served(version(4), name="review_sentiment", description="Stars that a review would give."),
    )


def many(count: int) -> Catalog:
    """So many models of three versions each."""
    return catalog(
        *(
            served(version(1), version(2), version(3), name=f"model_{n:04}", description=f"No. {n}")
            for n in range(count)
        )
    )


class FakeModels:
    """Answers in the shape of each model's outputs; `error` is raised instead where it is set. A
    stream has two events, and the second one waits until it `may_go_on`."""

    def __init__(self) -> None:
        self.error: GatewayError | None = None
        self.may_go_on = threading.Event()

    async def call(self, call: Call) -> CallResult:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(0)
        frame = call.frame
        answer = _ANSWERS.get(call.model.name)
        if answer is None and frame.layout == "tensor":
            output: Any = (
                "values",
                np.asarray(frame.columns[0]).reshape(frame.rows, -1).sum(axis=1),
            )
        elif answer is None and call.model.name == TUPLE:
            output = ("values", [f"{a} {b}" for a, b in zip(*frame.columns, strict=True)])
        elif answer is None and call.model.name == TYPES:
            output = ("columns", list(frame.names), list(frame.columns))
        else:
            made = (answer or _doubled)(
                dict(zip(map(str, frame.names), frame.columns, strict=True)), frame.rows
            )
            output = ("columns", list(made), list(made.values()))
        return CallResult(output=output, timings_ms={"model": 2.31})

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        yield CallResult(output=("values", [{"text": "on a laptop"}]))
        await asyncio.to_thread(self.may_go_on.wait, 60)
        yield CallResult(output=("values", [{"text": "or a cluster"}]))


def _doubled(columns: Mapping[str, Any], rows: int) -> Mapping[str, Any]:
    return {"y": np.asarray(columns["x"]) * 2}


def _minutes(columns: Mapping[str, Any], rows: int) -> Mapping[str, Any]:
    minutes = 12 + 4.5 * np.asarray(columns["distance_km"]) + 0.8 * np.asarray(columns["items"])
    return {"minutes": minutes.round(1), "late_risk": (minutes / 120).round(3)}


_ANSWERS: dict[str, Answer] = {
    "translation_model": lambda columns, rows: {
        "translation_text": ["Le temps est beau aujourd'hui"] * rows
    },
    "delivery_time": _minutes,
    "question_answerer": lambda columns, rows: {
        "answer": ["on a laptop or a cluster"] * rows,
        "score": np.full(rows, 0.87, dtype="float32"),
    },
    HELD: lambda columns, rows: {"risk": np.full(rows, 0.31)},
}


class FixedKeys:
    """Keys that never change."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring


class Stage:
    """The application over fakes, answering on a port of the loopback."""

    def __init__(
        self,
        now: Catalog,
        access: Access | None = None,
        *,
        placement: Placement | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self.feed = StaticFeed(now)
        self.feed.shadows = {SHADOWED: compared()} if SHADOWED in now.models else {}
        self.models = FakeModels()
        service = PredictionService(
            feed=self.feed,
            submit=self.models.call,
            streaming=self.models,
            default_timeout_s=5,
        )
        self.app: FastAPI = create_app(
            service=service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=1024 * 1024),
            access=access,
            placement=placement,
            origins=origins,
            mlflow_url=MLFLOW_URL,
        )
        self.url = ""


@contextmanager
def staged(
    now: Catalog, access: Access | None = None, *, placement: Placement | None = None
) -> Iterator[Stage]:
    """A stage whose server runs in a thread until the block ends."""
    stage = Stage(now, access, placement=placement)
    config = uvicorn.Config(stage.app, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()  # whoever comes before the server is there waits, and isn't refused
    stage.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield stage
    finally:
        server.should_exit = True
        thread.join(timeout=10.0)
        socket.close()
