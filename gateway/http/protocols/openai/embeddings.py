"""What embedding models say, as OpenAI's objects."""

from __future__ import annotations

from typing import Any

from gateway.errors import InvalidModelOutput


class Embeddings:
    """An `llm/v1/embeddings` answer is an embedding list already, but for its model; of a model
    that answers bare vectors it is made. Each text has one, or OpenAI's clients match them wrongly.
    """

    def __init__(self, model: str, texts: int) -> None:
        self._model, self._texts = model, texts

    def whole(self, answer: Any) -> dict[str, Any]:
        """The object; raises InvalidModelOutput where it isn't one embedding for each text."""
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            if not isinstance(answer, list):
                raise InvalidModelOutput("The model's answer is no list of embeddings.")
            vectors = answer
            vectors = vectors if vectors and isinstance(vectors[0], list) else [vectors]
            data = [
                {"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)
            ]
        if len(data) != self._texts:
            raise InvalidModelOutput(
                f"The model answered {len(data)} embeddings to {self._texts} texts."
            )
        beside = answer if isinstance(answer, dict) else {}
        usage = {"usage": {"prompt_tokens": 0, "total_tokens": 0}}
        return {**usage, **beside, "object": "list", "data": data, "model": self._model}
