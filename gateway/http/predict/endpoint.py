"""Predictions of the model that the path names, in whatever protocol (`dialect`).

Must not import ray or mlflow.
"""

from __future__ import annotations

from typing import Any, Unpack

from starlette.responses import Response
from starlette.types import Scope

from gateway.admission import Visit
from gateway.catalog import Resolution
from gateway.contract import TYPED, Form
from gateway.contract.agents import asks_for_stream
from gateway.errors import GatewayError
from gateway.http.access_log import note_answer
from gateway.http.predict.answering import Answer, AnsweringEndpoint, Around, Exchange, kept
from gateway.http.predict.body import read_body
from gateway.http.predict.deadline_header import timeout_of
from gateway.http.predict.dialect import Dialect, require_json
from gateway.http.predict.disconnect import Departure
from gateway.http.predict.event_stream import problem_of_event
from gateway.http.predict.negotiation import JSON, takes_events
from gateway.http.predict.path import PREDICT_PATH
from gateway.http.predict.version_header import RawHeaders
from gateway.prediction import PredictionService

DRAWN = "modelmux.drawn"
"""Where a request's scope has which version it gets, where that is drawn already (`direct`)."""

_JSON_ALONE = ((b"content-type", JSON),)


class PredictEndpoint(AnsweringEndpoint):
    """Answers as `dialect` has it; where there is none, as the typed route does. The request's
    scope has the model's name among its `path_params`."""

    def __init__(
        self,
        service: PredictionService,
        *,
        route: str = PREDICT_PATH,
        dialect: Dialect | None = None,
        **around: Unpack[Around],
    ) -> None:
        self._dialect = Dialect() if dialect is None else dialect
        super().__init__(service, route=route, **around)

    @property
    def deciding(self) -> frozenset[bytes]:
        """See `Dialect.deciding`."""
        return self._dialect.deciding

    def form_of_json(self, resolution: Resolution) -> Form:
        """The form of a request that declares JSON, and whose headers decide nothing else."""
        return self._dialect.form(_JSON_ALONE, resolution)

    @property
    def _protocol(self) -> str:
        return self._dialect.protocol

    def _problem(self, scope: Scope, error: GatewayError) -> Response:
        return self._dialect.problem(scope, error)

    def _problem_of_event(self, scope: Scope, error: GatewayError) -> dict[str, Any]:
        return problem_of_event(scope, error)

    async def _answer(self, exchange: Exchange) -> tuple[Answer, Visit]:
        scope = exchange.scope
        exchange.model = scope["path_params"]["name"]
        asked = self._dialect.asked(scope)
        exchange.model = asked.name
        if self._access is not None:
            self._access.identify(scope).require_call(asked.name)
        resolution = scope.get(DRAWN) or self._service.resolve(
            asked.name, asked.selector, scope["headers"]
        )
        # Now, because not every end names them: a caller may leave, and a bug knows no model.
        note_answer(scope, asked.name, resolution.version.number, None)
        exchange.captured = self.begin_capture(scope, resolution, asked.selector)
        return await self._prediction(exchange, resolution)

    async def _prediction(self, exchange: Exchange, resolution: Resolution) -> tuple[Answer, Visit]:
        headers: RawHeaders = exchange.scope["headers"]
        captured = exchange.captured
        events = self._dialect.streams and takes_events(headers)
        if events:
            require_json(headers)
        form = TYPED if events else self._dialect.form(headers, resolution)
        timeout_s = timeout_of(headers)
        visit = self._service.arrive(resolution)

        async def asked() -> Answer:
            body = await read_body(headers, exchange.receive, limits=self._limits, visit=visit)
            is_agent = resolution.version.task is not None
            streams = events or (is_agent and form is TYPED and asks_for_stream(body))
            with Departure(exchange.receive):
                if streams:
                    return await self._service.stream(
                        resolution, body, visit, timeout_s=timeout_s, kept=captured
                    )
                return await self._service.predict(
                    resolution, body, visit, timeout_s=timeout_s, form=form, kept=captured
                )

        return await kept(visit, asked())
