"""`/` and `/catalog/{name}`: the catalog as pages.

With keys on, a browser that goes to a page has no way to send one: it gets a page that asks for a
key, has nothing of any model in it, and fetches the same address again with the key. Errors are
pages too, with the status and the headers of the problem document that they stand for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, Request, Response

from gateway.catalog import Catalog
from gateway.errors import GatewayError, InternalError
from gateway.history import HistoryEntry
from gateway.http.access_control import Access, has_key, may_read_data, require_sight, visible_part
from gateway.http.pages.listing import Question, listing
from gateway.http.pages.mlflow_links import MlflowLinks
from gateway.http.pages.model_view import model_page
from gateway.http.pages.rendering import PageRenderer
from gateway.http.pages.shadow_chart import chart_of
from gateway.http.placement import relative_root
from gateway.http.problems import problem_of
from gateway.http.request_identity import request_id_of
from gateway.http.shadow_view import ShadowView, describe_shadow
from gateway.http.views import ModelSummary, describe_history
from gateway.metrics.collection import Measured, Measurements
from gateway.metrics.version_figures import VersionFigures, figures_of
from gateway.ports import CatalogFeed
from gateway.prediction import PredictionService
from gateway.shadow_figures import ShadowFigures

_HISTORY_SHOWN = 20
_OF_DOCUMENTS = ("content-type", "content-length")


def page_router(
    service: PredictionService,
    feed: CatalogFeed,
    access: Access | None,
    measurements: Measurements | None,
    mlflow: MlflowLinks,
) -> APIRouter:
    """The routes of the catalog page."""
    router = APIRouter(include_in_schema=False)
    pages = CatalogPages(service, feed, access, measurements, mlflow)

    @router.get("/")
    async def index(request: Request) -> Response:
        return await pages.answer(request, pages.index)

    @router.get("/catalog/{name}")
    async def model(name: str, request: Request) -> Response:
        return await pages.answer(request, lambda asked: pages.model(asked, name))

    return router


class CatalogPages:
    """Renders the pages over what is served at this moment."""

    def __init__(
        self,
        service: PredictionService,
        feed: CatalogFeed,
        access: Access | None,
        measurements: Measurements | None,
        mlflow: MlflowLinks,
    ) -> None:
        self._service = service
        self._measurements = measurements
        self._feed = feed
        self._access = access
        # Where the documents are open to everybody, so are these: they show the same models.
        self._needs_key = access is not None and not access.is_open("/openapi.json")
        self._renderer = PageRenderer(keys=access is not None, mlflow=mlflow)
        self._one_at_a_time = asyncio.Lock()

    async def answer(
        self, request: Request, page: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """The page, the one that asks for a key, or the one about an error."""
        base = relative_root(request.scope)
        try:
            if self._access is not None and self._needs_key:
                if "authorization" not in request.headers:
                    return self._renderer.page("locked.html", base=base)
                self._access.identify(request.scope)
            # A list of thousands of models is half a second of work: beside the predictions, not in
            # their way. One page at a time, so that many don't crowd them out either.
            async with self._one_at_a_time:
                return await page(request)
        except GatewayError as error:
            return self._problem(request, error, base)

    async def index(self, request: Request) -> Response:
        """The list of models."""
        return await asyncio.to_thread(self._index, request)

    def _index(self, request: Request) -> Response:
        asked = request.query_params
        question = Question.of(asked.get("q", ""), asked.get("show", ""), asked.get("page", ""))
        found = listing(self._visible(request), self._service.unloadable, question)
        return self._renderer.page(
            "index.html",
            base=relative_root(request.scope),
            listing=found,
            registry=self._feed.registry,
        )

    async def model(self, request: Request, name: str) -> Response:
        """The page of one model."""
        require_sight(request, name)
        served = self._service.catalog().model(name)
        figures: ShadowFigures | None = None
        try:
            history = await self._feed.history(name, limit=_HISTORY_SHOWN)
            figures = await self._feed.shadow(name)
        except InternalError:
            history = None  # it is said on the page, and the rest of it is of use
        measured = None
        if served.canary is not None and self._measurements is not None:
            measured = await self._measurements.measured()
        shadow = None
        if figures is not None or served.options.shadow is not None:
            # Where anybody may look at the page, what callers got is for none of them.
            is_open = self._access is not None and not has_key(request)
            shadow = describe_shadow(
                served, figures, with_inputs=may_read_data(request), with_rows=not is_open
            )
        return await asyncio.to_thread(self._model, request, name, history, measured, shadow)

    def _model(
        self,
        request: Request,
        name: str,
        history: Sequence[HistoryEntry] | None,
        measured: Measured | None,
        shadow: ShadowView | None,
    ) -> Response:
        page = model_page(
            self._service.catalog(),
            name,
            self._service.unloadable,
            more_versions=request.query_params.get("versions") == "more",
        )
        told = None if history is None else describe_history(name, history).entries
        return self._renderer.page(
            "model.html",
            base=relative_root(request.scope),
            page=page,
            model=page.summary,
            history=told,
            sides=_sides(page.summary, measured),
            shadow=shadow,
            chart=None if shadow is None else chart_of(shadow.course),
        )

    def _visible(self, request: Request) -> Catalog:
        return visible_part(request, self._service.catalog())

    def _problem(self, request: Request, error: GatewayError, base: str) -> Response:
        document = problem_of(request.scope, error)
        headers = {k: v for k, v in document.headers.items() if k not in _OF_DOCUMENTS}
        return self._renderer.page(
            "problem.html",
            base=base,
            status=document.status_code,
            headers=headers,
            error=error,
            request_id=request_id_of(request.scope),
            registry=self._feed.registry,
        )


def _sides(model: ModelSummary, measured: Measured | None) -> list[tuple[str, int, VersionFigures]]:
    """The default and the canary with their figures, as far as there are any."""
    if measured is None or model.canary is None:
        return []
    versions = (("Default", model.default_version), ("Canary", model.canary.version))
    return [
        (side, number, figures_of(measured, model.name, number))
        for side, number in versions
        if number is not None
    ]
