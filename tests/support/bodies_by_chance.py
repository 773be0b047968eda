"""Bodies of predictions by chance, good ones and bad ones."""

from __future__ import annotations

import json
import random
from typing import Any


class Bodies:
    """By chance, good ones and bad ones, in the forms of each protocol."""

    def __init__(self, seed: int) -> None:
        self._drawn = random.Random(seed)
        self._values: list[Any] = [
            0, 1.5, -3, 2**70, True, None, "a", "", "ü", [], {}, float("inf"), "1",
        ]  # fmt: skip

    def of(self, protocol: str) -> bytes:
        """One of them; now and then it breaks off."""
        body: Any = {"mlflow": self._mlflow, "inference_v2": self._tensors}.get(
            protocol, self._typed
        )()
        text = json.dumps(body).encode()
        return text if self._drawn.random() < 0.9 else text[: len(text) // 2]

    def _is(self, chance: float) -> bool:
        return self._drawn.random() < chance

    def _row(self) -> dict[str, Any]:
        names = self._drawn.sample(["x", "n", "t", "other"], self._drawn.randint(0, 4))
        good = {"x": self._drawn.random(), "n": self._drawn.randint(0, 9), "t": "text"}
        if self._is(0.6):
            return good
        return {**good, **{name: self._drawn.choice(self._values) for name in names}}

    def _rows(self) -> list[dict[str, Any]]:
        return [self._row() for _ in range(self._drawn.choice([0, 1, 1, 2, 11]))]

    def _columns(self) -> dict[str, list[Any]]:
        rows, names = self._rows(), self._drawn.sample(["x", "n", "t"], 3)
        if self._is(0.1):
            names.pop()
        return {name: [row.get(name) for row in rows] for name in names}

    def _typed(self) -> Any:
        if self._is(0.4):
            return self._row()
        return self._rows() if self._is(0.7) else {"inputs": self._rows(), "params": {"p": 1}}

    def _mlflow(self) -> Any:
        columns = self._columns()
        data = list(zip(*columns.values(), strict=True))
        forms: dict[str, Any] = {
            "dataframe_records": self._rows(),
            "dataframe_split": {"columns": list(columns), "data": data},
            "instances": self._rows(),
            "inputs": self._columns(),
            "messages": "a",
        }
        chosen = self._drawn.choices(list(forms), [4, 4, 2, 2, 1], k=2 if self._is(0.05) else 1)
        params = {"params": self._drawn.choice([{}, {"p": 1}, 3])} if self._is(0.2) else {}
        return {**{name: forms[name] for name in chosen}, **params}

    def _tensors(self) -> Any:
        datatypes = {"x": "FP64", "n": "INT64", "t": "BYTES"}
        inputs = [
            {
                "name": name,
                "shape": [len(data) + self._is(0.05), *([1] if self._is(0.3) else [])],
                "datatype": "FP32" if self._is(0.05) else datatypes[name],
                "data": data,
            }
            for name, data in self._columns().items()
        ]  # fmt: skip
        more: dict[str, list[Any]] = {
            "id": ["7", 7],
            "parameters": [{}, {"content_type": "pd"}, {"binary_data_output": True}, {"p": 1}],
            "outputs": [
                [{"name": "t"}], [{"name": "no"}], [],
                [{"name": "x", "parameters": {"binary_data": True}}, {"name": "t"}],
            ],
        }  # fmt: skip
        asked = {name: self._drawn.choice(each) for name, each in more.items() if self._is(0.15)}
        return {"inputs": inputs, **asked}
