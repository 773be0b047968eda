"""Templates and the headers of a page: what makes HTML of values, and what a browser may do with
it.

Every value is escaped, and the policy allows neither inline scripts nor inline styles nor any other
host: a name that is HTML stays a name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from gateway.http.pages.mlflow_links import MlflowLinks
from gateway.http.pages.model_view import registered_on

_TEMPLATES = Path(__file__).parent / "templates"

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # What is shown depends on the key, and on this moment.
    "Cache-Control": "no-store",
    "Vary": "Authorization",
}


class PageRenderer:
    """Renders templates; `keys` says whether keys are on at all, `mlflow` where MLflow shows a
    model."""

    def __init__(self, *, keys: bool, mlflow: MlflowLinks) -> None:
        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["segment"] = _segment
        environment.filters["day"] = registered_on
        environment.filters["where"] = _where
        environment.filters["json"] = _json
        environment.globals["query"] = _query
        environment.globals["mlflow"] = mlflow
        self._environment = environment
        self._keys = keys

    def page(
        self,
        template: str,
        *,
        base: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """A page; `base` is the relative address of the application's root."""
        content = self._environment.get_template(template).render(
            base=base, keys=self._keys, **values
        )
        return Response(
            content, status, {**(headers or {}), **SECURITY_HEADERS}, media_type="text/html"
        )


def _segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _query(words: str, show: str, page: int = 1) -> str:
    """The query string of a list; `?` alone is the whole list."""
    asked = {"q": words, "show": "" if show == "all" else show, "page": page if page > 1 else ""}
    return f"?{urlencode({name: value for name, value in asked.items() if value})}"


def _json(value: Any) -> str:
    """A value as JSON, to be escaped like any other text."""
    return json.dumps(value, ensure_ascii=False)


def _where(pointer: str) -> str:
    """A JSON pointer into a signature, for people: `tags › each` for `/tags/*`."""
    parts = [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]
    return " › ".join("each" if part == "*" else part for part in parts)
