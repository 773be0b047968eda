"""The catalog's pages as responses: what is in them, what a browser may do with them."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.catalog import Catalog, contract_of
from gateway.http.access_control import Access
from gateway.http.pages import rendering
from gateway.http.pages.forms import form_of
from gateway.http.pages.listing import PAGE_SIZE, Question, listing
from gateway.http.pages.model_view import VERSIONS_SHOWN, model_page
from gateway.ports import RegistryStatus
from gateway.security.api_keys import parse_keys
from tests.support.catalogs import catalog, served, signature, version
from tests.support.page_catalog import (
    HELD,
    HOSTILE,
    MLFLOW_URL,
    TENSOR,
    FixedKeys,
    Stage,
    many,
    shown,
)

ROOT = Path(rendering.__file__).parents[1]
GOOD = {"Authorization": "Bearer good"}


def client(stage: Stage) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(stage.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gw")


def tags_in(page: str) -> list[tuple[str, dict[str, str]]]:
    """The elements of a page with their attributes, as a browser would read them."""
    found: list[tuple[str, dict[str, str]]] = []
    parser = HTMLParser()
    parser.handle_starttag = (  # type: ignore[method-assign]
        lambda tag, attributes: found.append((tag, {k: v or "" for k, v in attributes}))
    )
    parser.feed(page)
    return found


def access(*scopes: str, public: tuple[str, ...] = ()) -> Access:
    digest = hashlib.sha256(b"good").hexdigest()
    keyring = parse_keys(f"k sha256:{digest} {','.join(scopes)}")
    return Access(keys=FixedKeys(keyring), public=frozenset(public))


@pytest.fixture
async def asking() -> AsyncIterator[httpx.AsyncClient]:
    async with client(Stage(shown())) as made:
        yield made


PAGES = ("/", "/?q=time&show=held", f"/catalog/{HELD}", "/catalog/all types", "/catalog/nothing")


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_nothing_inline_and_nothing_from_elsewhere(
    asking: httpx.AsyncClient, path: str
) -> None:
    """A strict policy, which the page itself keeps; all of its files are there."""
    response = await asking.get(path)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    for tag, attributes in tags_in(response.text):
        assert tag != "style"
        assert tag != "script" or "src" in attributes
        assert [name for name in attributes if name == "style" or name.startswith("on")] == []
        for name in ("src", "href", "action"):
            leads_away = tag == "a" and attributes.get(name, "").startswith(MLFLOW_URL)
            assert leads_away or not re.match("(?:[a-z]+:)?//", attributes.get(name, ""))
    files = re.findall(r'(?:src|href)="\.\.?/(docs/assets/[^"]+)"', response.text)
    assert len(files) >= 5
    for file in files:
        assert (await asking.get(f"/{file}")).status_code == 200


def test_every_module_is_named_in_the_page() -> None:
    """They are fetched side by side, and not one after the other has been read."""
    folder = ROOT / "assets" / "catalog"
    base = (ROOT / "pages" / "templates" / "base.html").read_text(encoding="utf-8")
    for file in folder.glob("*.js"):
        assert f'"{file.stem}"' in base or f"/{file.name}" in base, file.name


async def test_what_needs_the_scripts_waits_for_them(asking: httpx.AsyncClient) -> None:
    """A form that nobody has wired yet can't be sent: a browser would reload the page."""
    page = (await asking.get("/catalog/delivery_time")).text
    buttons = [attributes for tag, attributes in tags_in(page) if tag == "button"]
    for name in ("send", "add-row"):
        (found,) = (each for each in buttons if each.get("id") == name)
        assert "disabled" in found


def test_scripts_and_styles_name_no_other_host_and_read_no_html() -> None:
    """What the policy forbids isn't tried either; text never becomes HTML."""
    for file in (ROOT / "assets" / "catalog").glob("*.[jc]s*"):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"https?://", text) == [], file.name
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(", text) == [], file.name


async def test_names_are_escaped_wherever_they_are(asking: httpx.AsyncClient) -> None:
    """In text, in attributes and in addresses."""
    listed = (await asking.get("/")).text
    (address,) = re.findall(r'href="\./(catalog/%3Cimg[^"]+)"', listed)
    page = (await asking.get(f"/{address}")).text
    for text in (listed, page):
        assert "<img src=x" not in text
        assert "<script>window" not in text
        assert "&lt;img src=x" in text


async def test_errors_are_pages_with_the_status_of_their_problem() -> None:
    """404 and 503, with what a problem document would say."""
    stage = Stage(shown())
    async with client(stage) as asking:
        missing = await asking.get("/catalog/nothing")
        stage.feed.catalog = None
        stage.feed.registry = RegistryStatus(problem="No route to the registry.")
        early = await asking.get("/")
    assert (missing.status_code, early.status_code) == (404, 503)
    for response in (missing, early):
        assert response.headers["Content-Type"].startswith("text/html")
        assert response.headers["X-Request-ID"] in response.text
    assert "model_not_found" in missing.text
    assert early.headers["Retry-After"] == "2"
    assert "No route to the registry." in early.text


async def test_without_a_key_a_page_shows_nothing_of_any_model() -> None:
    """The same page for every name, there or not; with a key what that key may see."""
    async with client(Stage(shown(), access("predict:delivery*"))) as asking:
        bare = [await asking.get(path) for path in ("/catalog/delivery_time", "/catalog/nothing")]
        listed = await asking.get("/", headers=GOOD)
        own = await asking.get("/catalog/delivery_time", headers=GOOD)
        others = await asking.get(f"/catalog/{HELD}", headers=GOOD)
        wrong = await asking.get("/", headers={"Authorization": "Bearer bad"})
    assert bare[0].status_code == 200
    assert bare[0].text == bare[1].text
    assert "delivery" not in bare[0].text
    assert re.findall('data-model="([^"]+)"', listed.text) == ["delivery_time"]
    assert [own.status_code, others.status_code, wrong.status_code] == [200, 403, 401]
    assert HELD not in others.text
    assert wrong.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_where_the_documents_are_public_the_pages_are_too() -> None:
    """They show the same models; a prediction needs a key all the same."""
    async with client(Stage(shown(), access("read", public=("docs",)))) as asking:
        page = await asking.get(f"/catalog/{HELD}")
        refused = await asking.post(f"/models/{HELD}/predict", json={})
    assert "Version 7 is held" in page.text
    assert 'data-keys="on"' in page.text
    assert refused.status_code == 401


# --- listing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "page", "first"),
    [("1", 1, "model_0000"), ("3", 3, "model_0100"), ("99", 3, "model_0100"),
     ("0", 1, "model_0000"), ("-1", 1, "model_0000"), ("x", 1, "model_0000"),
     ("9" * 40, 1, "model_0000"), ("²", 1, "model_0000")],
)  # fmt: skip
def test_a_page_that_is_not_there_is_the_nearest(asked: str, page: int, first: str) -> None:
    """Whatever the address says, there is a list."""
    found = listing(many(2 * PAGE_SIZE + 1), {}, Question.of("", "nonsense", asked))
    assert (found.page, found.pages, found.models[0].name) == (page, 3, first)
    assert found.question.show == "all"


def test_every_word_must_be_found_somewhere() -> None:
    """In name, description, alias or an input's name; the counts are of what the words find."""
    found = listing(shown(), {}, Question.of("TRANS german", "ready", ""))
    assert [model.name for model in found.models] == ["translation_model"]
    assert found.counts == {"all": 1, "ready": 1, "held": 0, "unservable": 0}
    by_input = listing(shown(), {}, Question.of("distance_KM", "all", ""))
    assert [model.name for model in by_input.models] == ["delivery_time"]


# --- forms ------------------------------------------------------------------------------------


def test_a_form_is_filled_with_the_models_own_example() -> None:
    """One row per input; what the example leaves out is empty, with an example as placeholder."""
    page = model_page(shown(), "delivery_time", {})
    assert page.form is not None
    assert page.form.rows == (("harbour", "3", "4.2", "false", "", ""),)
    assert [f.control for f in page.form.fields] == [
        "text", "number", "number", "choice", "number", "text"
    ]  # fmt: skip
    assert page.form.fields[-1].placeholder == "2024-01-31T12:00:00"
    assert [f.required for f in page.form.fields] == [True, True, True, True, False, False]


@pytest.mark.parametrize("example", [[], {"x": 1.0, "unknown": 1}, "text", None])
def test_an_example_that_says_nothing_is_made_up(example: Any) -> None:
    """No rows, or what the contract doesn't take (it may be a newer version's)."""
    form = form_of(contract_of(signature(("x", "double"))), example)
    assert form.rows == (("1.0",),)


IMAGE = [-1, 2048, 2048, 3]


def tensors(*shapes: list[int], names: tuple[str, ...] = ()) -> str:
    """A signature of tensors as JSON text."""
    specs: list[dict[str, Any]] = [
        {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": shape}} for shape in shapes
    ]
    for spec, name in zip(specs, names, strict=bool(names)):
        spec["name"] = name
    return orjson.dumps({"inputs": orjson.dumps(specs).decode()}).decode()


def test_an_image_is_not_made_up() -> None:
    """One empty input, which says what it takes; small tensors beside it are filled in."""
    alone = form_of(contract_of(tensors(IMAGE)), None)
    beside = form_of(contract_of(tensors(IMAGE, [-1, 2], names=("image", "size"))), None)
    assert (alone.rows, beside.rows) == ((("",),), (("", "[1.0, 1.0]"),))
    assert alone.fields[0].hint == "JSON: nested lists, 2048 × 2048 × 3."
    assert [field.placeholder for field in beside.fields] == ["", "[1.0, 1.0]"]


async def test_a_model_of_images_has_small_pages_and_documents() -> None:
    """No example in any of them: null where there is a place for one."""
    async with client(Stage(catalog(served(version(1, tensors(IMAGE)))))) as asking:
        paths = ("/catalog/m", "/models/m", "/openapi.json", "/models/m/openapi.json")
        page, model, *documents = [await asking.get(path) for path in paths]
    assert model.json()["example"] is None
    for document in documents:
        operation = document.json()["paths"]["/models/m/predict"]["post"]
        assert list(operation["requestBody"]["content"]["application/json"]) == ["schema"]
    assert max(len(each.content) for each in (page, model, *documents)) < 100_000


async def test_pages_are_rendered_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions don't wait for a page, however much there is in it."""
    rendered: list[int] = []
    render = rendering.PageRenderer.page

    def noting(self: Any, *what: Any, **values: Any) -> Any:
        rendered.append(threading.get_ident())
        return render(self, *what, **values)

    monkeypatch.setattr(rendering.PageRenderer, "page", noting)
    async with client(Stage(shown())) as asking:
        for path in ("/", "/catalog/delivery_time"):
            assert (await asking.get(path)).status_code == 200
    assert len(rendered) == 2
    assert threading.get_ident() not in rendered


def test_inputs_that_travel_together_are_all_in_the_form() -> None:
    """As many as a fixed first dimension asks for."""
    form = form_of(contract_of(tensors([3, 2])), None)
    assert (form.shape, form.rows_together, len(form.rows)) == ("value", 3, 3)
    assert form.fields[0].hint == "JSON: nested lists, 2."


def test_a_model_with_a_column_called_inputs_has_no_params_in_its_form() -> None:
    """No body could bring them."""
    params = ({"name": "p", "type": "long", "default": 1, "shape": None},)
    form = form_of(contract_of(signature(("inputs", "string"), params=params)), None)
    assert form.params == ()


def test_what_an_earlier_contract_took_is_in_the_signature_and_not_in_the_form() -> None:
    """Callers may go on sending it; nobody needs to begin."""
    now, before = signature(("x", "double")), signature(("x", "double"), ("old", "string", False))
    model = served(version(1, now), earlier_contracts=(before,))
    page = model_page(catalog(model), "m", {})
    assert page.form is not None
    assert [field.name for field in page.form.fields] == ["x"]
    assert [(row.name, bool(row.note)) for row in page.inputs] == [("x", False), ("old", True)]


def test_a_model_of_many_versions_shows_the_newest_and_the_notable() -> None:
    """The default and what has an alias too; all can be chosen, all are shown when asked."""
    now = catalog(served(*(version(n) for n in range(1, 101)), default=3, aliases={"old": 2}))
    page = model_page(now, "m", {})
    assert len(page.versions) == VERSIONS_SHOWN + 2
    assert len(page.version_choices) == 100
    assert page.more == 100
    more = model_page(now, "m", {}, more_versions=True)
    assert (len(more.versions), more.more) == (100, None)


async def test_a_model_of_a_thousand_versions_has_a_page_of_bounded_size() -> None:
    """Whoever asks for more gets the newest hundred, and the word that there are others."""
    now = catalog(served(*(version(n) for n in range(1, 1001)), default=3))
    async with client(Stage(now)) as asking:
        first = (await asking.get("/catalog/m")).text
        more = (await asking.get("/catalog/m?versions=more")).text
    assert "Show the newest 100 of 1000 versions" in first
    assert more.count('class="version-row"') == 101
    assert "101 of 1000 versions" in more


def test_every_model_of_the_stage_has_a_page() -> None:
    """Tensors, unnamed columns, all types, none at all."""
    now: Catalog = shown()
    pages = {name: model_page(now, name, {}) for name in now.models}
    assert [name for name, page in pages.items() if page.form is None] == ["invoice_parser"]
    tensor = pages[TENSOR].form
    assert tensor is not None
    assert tensor.rows == (("[[1.0, 1.0], [1.0, 1.0]]",),)
    assert pages[HOSTILE].summary.name == HOSTILE
