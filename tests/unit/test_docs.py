"""The pages can't drift from the code: settings, tags, errors, routes, commands and links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, cast

import annotated_types
import click
import pytest
import typer
import uv
import yaml
from pydantic.fields import FieldInfo
from starlette.routing import BaseRoute, Mount, Route

from deployments import mlflow_environment as registry_environment
from deployments.cli.app import app as command_line
from deployments.cluster import ray_environment as fast_path
from deployments.settings import CLIENT_VARIABLES, PREFIX, Settings
from gateway.catalog import ModelOptions
from gateway.errors import all_errors
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.metrics.families import FAMILIES
from gateway.ports import CatalogFeed
from gateway.prediction import PredictionService
from registry_sync import tags

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
HTTP, GATE, SETTINGS, MONITORING, INTERNALS = (
    DOCS / f"{name}.md"
    for name in (
        "2-http-interface",
        "3-versions-and-the-gate",
        "4-settings",
        "8-monitoring",
        "11-ray-internals",
    )
)
OURS = ("deployments", "gateway", "registry_sync")
STANDARD = ("os",)
"""Modules of the standard library whose names with an underscore are public."""

TAGS = {f"{tags.PREFIX}{name}" for name in ModelOptions.model_fields} | {
    tags.SERVE,
    tags.ACCEPT_BREAKING,
    *tags.CANARY_TAGS,
    *tags.PIN_TAGS,
}
VARIABLES = {f"{PREFIX}{name.upper()}" for name in (*Settings.model_fields, *CLIENT_VARIABLES)}

LOGGERS = {
    name
    for package in OURS
    for path in (ROOT / package).rglob("*.py")
    for name in re.findall(r'getLogger\("([\w.]+)"\)', path.read_text(encoding="utf-8"))
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def rows(page: Path, *headings: str) -> list[dict[str, str]]:
    """The rows of the page's only table that begins with these headings, backticks removed."""
    tables = [t for t in _tables(page) if t and t[0][: len(headings)] == list(headings)]
    assert len(tables) == 1, f"{page.name} has {len(tables)} tables that begin with {headings}"
    head, _, *body = tables[0]
    return [dict(zip(head, row, strict=True)) for row in body]


def _tables(page: Path) -> Iterator[list[list[str]]]:
    table: list[list[str]] = []
    for line in [*page.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            cells = line.strip().strip("|").split("|")
            table.append([cell.strip().replace("`", "") for cell in cells])
        elif table:
            yield table
            table = []


def first_cells(page: Path, *headings: str) -> list[str]:
    return [row[headings[0]] for row in rows(page, *headings)]


def written_default(field: FieldInfo) -> str:
    """A default as the tables write it."""
    value = field.default
    if field.is_required():
        return "required"
    if value is None:
        return "none"
    if value in ((), ""):
        return "empty"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def bounds_of(field: FieldInfo) -> set[float]:
    """The numbers that bound a field's values; text that must not be empty has none."""
    found: set[float] = set()
    for bound in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if not isinstance(bound, annotated_types.MinLen) and hasattr(bound, name):
                found.add(float(getattr(bound, name)))
    return found


def numbers_in(text: str) -> set[float]:
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}


# --- settings, variables, command line --------------------------------------------------------


def test_variables_of_uvs_that_are_named_are_uvs() -> None:
    """uv passes over those that it doesn't know without a word."""
    program = Path(uv.find_uv_bin()).read_bytes()
    pages = [*PAGES, ROOT / "docker-compose.yml", ROOT / "deploy/compose/env.example"]
    named = {
        name for page in pages for name in re.findall(r"\bUV_[A-Z_]*[A-Z]\b", page.read_text())
    }
    theirs = {re.sub(r"_NAME_(USERNAME|PASSWORD)\Z", "_", name) for name in named}
    assert "UV_OFFLINE" in theirs
    assert [name for name in sorted(theirs) if name.encode() not in program] == []


def test_every_setting_is_in_its_table_with_default_and_range() -> None:
    """The table of settings has each field once, in order, and nothing else."""
    table = rows(SETTINGS, "name", "variable", "default", "range")
    assert [row["name"] for row in table] == list(Settings.model_fields)
    for row in table:
        field = Settings.model_fields[row["name"]]
        assert row["variable"] == f"{PREFIX}{row['name'].upper()}"
        assert row["default"] == written_default(field), row["name"]
        assert numbers_in(row["range"]) == bounds_of(field), row["name"]
        assert row["meaning"]


@every_page
def test_no_page_names_a_variable_that_nothing_reads(page: Path) -> None:
    """A `MODELMUX_…` variable on any page is a setting's, or what commands read."""
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named - VARIABLES == set()


def test_the_variables_of_the_fast_path_are_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variable set for Ray is in the table with its value, unless that is made on the spot."""
    monkeypatch.setattr(fast_path, "has_haproxy", lambda: True)
    environment = {
        name: value
        for proxied in (False, True)
        for name, value in fast_path.fast_path_environment(
            tmp_path, range(20_000, 20_099), proxied=proxied
        ).items()
    }
    table = {row["variable"]: row["value"] for row in rows(SETTINGS, "variable", "value", "why")}
    assert table.keys() == environment.keys()
    for name, value in table.items():
        if value == "a temporary folder":
            assert environment[name].startswith(str(tmp_path))
        elif value == "leastconn and files of a temporary folder":
            assert environment[name].startswith("leastconn\n")
            assert str(tmp_path) in environment[name]
        elif value == "a free port":
            assert environment[name].isdecimal()
        elif value == "a new secret":
            assert re.fullmatch(r"[0-9a-f]{64}", environment[name])
        else:
            assert environment[name] == value


def test_the_defaults_of_mlflows_variables_are_documented() -> None:
    """What is set for MLflow where the user set nothing is in its table."""
    tables = [t for t in _tables(SETTINGS) if t[0] == ["variable", "value"]]
    (table,) = tables
    assert {row[0]: row[1] for row in table[2:]} == registry_environment._DEFAULTS


def test_the_variables_that_travel_are_documented() -> None:
    """The table of variables that reach a cluster agrees with the pattern that picks them."""
    named = ", ".join(first_cells(SETTINGS, "variables", "for"))
    passed_on = registry_environment._PASSED_ON
    assert [name for name in named.split(", ") if not passed_on.match(name)] == []
    words = re.findall(r"[A-Z][A-Z_]+", passed_on.pattern)
    assert [word for word in words if word not in named] == []


def test_every_command_and_option_is_documented() -> None:
    """The tables of the command line have each command with all of its options, and no other."""
    group = cast(click.Group, typer.main.get_command(command_line))
    commands = dict(_commands(group))
    told = {
        row["command"].removeprefix("modelmux "): set(re.findall(r"-{1,2}[a-z-]+", row["options"]))
        for row in rows(SETTINGS, "command", "options")
    }
    assert told == {name: set(_options(command)) for name, command in commands.items()}
    described = first_cells(SETTINGS, "command", "does")
    assert {re.sub(r"^modelmux | [A-Z].*", "", cell) for cell in described} == told.keys()


def _commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in _commands(command))
        else:
            yield name, command


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield from parameter.opts


# --- tags -------------------------------------------------------------------------------------


def test_every_tag_is_in_its_table_with_default_and_range() -> None:
    """The table of tags has each tag once, with the default and bounds of its option."""
    table = rows(GATE, "tag", "on", "values", "default")
    assert sorted(row["tag"] for row in table) == sorted(TAGS)
    for row in table:
        field = ModelOptions.model_fields.get(row["tag"].removeprefix(tags.PREFIX))
        if field is not None:
            assert row["default"] == written_default(field), row["tag"]
            assert numbers_in(row["values"]) == bounds_of(field), row["tag"]
            assert row["on"] == "model"


@every_page
def test_no_page_names_a_tag_that_does_not_exist(page: Path) -> None:
    """Whatever a page calls `modelmux.<something>` is a tag, a logger, a file in deploy, or a
    media type."""
    named = set(
        re.findall(
            r"\bmodelmux\.(?!yaml\b|service\b|columns\b)[a-z][a-z_]*",
            page.read_text(encoding="utf-8"),
        )
    )
    assert named - TAGS - LOGGERS == set()


# --- HTTP -------------------------------------------------------------------------------------


def test_every_error_is_in_the_table() -> None:
    """The table of errors has each status and code, and no other."""
    table = rows(HTTP, "status", "code", "when")
    told = [(int(row["status"]), row["code"]) for row in table]
    assert told == [(error.status, error.code) for error in all_errors()]
    assert all(row["when"] for row in table)


def test_every_route_is_in_the_table() -> None:
    """The table of routes has each method and path of the application, and no other."""
    told = {(row["method"], row["path"]) for row in rows(HTTP, "method", "path")}
    assert told == set(_routes())


def _routes() -> Iterator[tuple[str, str]]:
    nothing = cast(Any, None)  # no route is called
    service = PredictionService(
        feed=cast(CatalogFeed, nothing),
        submit=nothing,
        default_timeout_s=1.0,
    )
    app = create_app(service=service, feed=nothing, limits=HttpLimits(max_body_bytes=1024))
    for route in _flat(app.routes):
        if isinstance(route, Mount):
            yield "GET", route.path
        else:
            assert isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}:
                yield method, route.path


def _flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes of a router and of those that it includes (FastAPI keeps these apart)."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _flat(included.routes)


# --- monitoring -------------------------------------------------------------------------------


def test_every_metric_is_in_a_table_with_its_kind_and_labels() -> None:
    """The tables of metrics have each family once, in order, and nothing else."""
    tables = [t for t in _tables(MONITORING) if t[0][:3] == ["metric", "kind", "labels"]]
    told = [row for table in tables for row in table[2:]]
    assert [(name, kind, labels) for name, kind, labels, _ in told] == [
        (family.exposed_name, family.kind, ", ".join(family.exposed_labels)) for family in FAMILIES
    ]
    assert all(meaning for *_, meaning in told)


def test_every_alert_is_in_its_table() -> None:
    """The table of alerts has each rule, and no other."""
    (group,) = yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text())["groups"]
    assert first_cells(MONITORING, "alert", "when") == [rule["alert"] for rule in group["rules"]]


@pytest.mark.parametrize(
    "file",
    [
        "prometheus/rules/alerts.yml",
        "prometheus/tests/alerts.yml",
        "grafana/dashboards/gateway.json",
    ],
)
def test_rules_and_dashboard_name_metrics_that_exist(file: str) -> None:
    """Whatever a rule, its test or a panel asks for is exposed under that name."""
    ends = {"counter": {""}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}
    names = {f.exposed_name + end for f in FAMILIES for end in ends[f.kind]}
    named = re.findall(r"\bmodelmux_[a-z_]+", (ROOT / "deploy" / file).read_text(encoding="utf-8"))
    assert set(named) - names == set()


# --- internals of others ----------------------------------------------------------------------


def _trees() -> dict[str, ast.Module]:
    """Our modules, parsed: where that is asked for, not in every process that reads the tests."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in OURS
        for path in (ROOT / package).rglob("*.py")
    }


def test_the_internals_that_are_used_are_on_their_page_and_have_a_pin() -> None:
    """What the code takes of others that begins with an underscore has a row with the file; the
    file of each row has its name; and the module of pins knows all rows and no others."""
    table = rows(INTERNALS, "name", "in", "why", "when it moves")
    # Without what it belongs to, where that is said: "`address_info` of `ray.init`".
    names = [row["name"].partition(" ")[0] for row in table]
    told = {(row["in"], name.rpartition(".")[2]) for row, name in zip(table, names, strict=True)}
    assert set(_internals()) - told == set()
    for file, name in told:
        assert name.rstrip("…") in (ROOT / file).read_text(encoding="utf-8"), name
    assert set(names) == set(_pinned())
    assert all(row["why"] and row["when it moves"] for row in table)


def _pinned() -> Iterator[str]:
    """The names in the decorators of the module of pins, which is read here and not imported."""
    source = (ROOT / "tests/integration/test_ray_internals.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(decorator_list=[ast.Call(ast.Name("pin"), names)]):
                yield from (ast.literal_eval(name) for name in names)


def _internals() -> Iterator[tuple[str, str]]:
    """The file and the last name of everything private of packages that aren't ours."""
    trees = _trees()
    ours = {name for tree in trees.values() for name in _defined(tree)}
    for file, tree in trees.items():
        for node in ast.walk(tree):
            match node:
                case ast.Import(names):
                    yield from ((file, each.name) for each in names if "._" in each.name)
                case ast.ImportFrom(module, names) if not str(module).startswith(OURS):
                    for each in names:
                        if "._" in str(module) or each.name.startswith("_"):
                            yield file, each.name
                case ast.Attribute(value, name) if re.match("_[a-z]", name) and name not in ours:
                    if ast.unparse(value) not in STANDARD and name not in ("_private", "_replace"):
                        yield file, name


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                yield name
            case ast.Name(name, ast.Store()):
                yield name
            case ast.Attribute(ast.Name("self"), name, ast.Store()):
                yield name


# --- pages ------------------------------------------------------------------------------------


@every_page
def test_links_between_pages_resolve(page: Path) -> None:
    """A relative link leads to a file of the repository, and its fragment to a heading there."""
    text = _without_code(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_relative_to(ROOT), target
        assert found.exists(), target
        if fragment:
            assert fragment in _anchors(found), target


PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"deploy", "docs", "tests"}
MODULES = {path.name for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


@every_page
def test_paths_on_the_pages_exist(page: Path) -> None:
    """What stands in backticks and looks like a path is a file or a folder: of the repository, or,
    where it begins with `ray/`, of the Ray that is installed. A module without its folder has the
    name of one of ours. A decision tells what was there when it was taken."""
    if page.parent.name == "decisions":
        return
    rays = distribution("ray")
    for name in re.findall(r"`([\w./-]+)`", _without_code(page)):
        top, slash, _ = name.partition("/")
        if top in PACKAGES and slash:
            assert (ROOT / name).exists(), name
        elif top == "ray" and slash:
            assert Path(str(rays.locate_file(name))).exists(), name
        elif re.fullmatch(r"\w+\.py", name):
            assert name in MODULES, name


def _without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", _without_code(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_no_page_names_a_place_on_somebodys_machine(page: Path) -> None:
    """Absolute paths of files, and addresses other than examples and standards, stay out."""
    text = page.read_text(encoding="utf-8")
    system = "bin|etc|home|mnt|opt|private|root|srv|tmp|usr|var|work|Users|Volumes"
    assert re.findall(rf"(?<![\w./*}}])/(?:{system})(?:/|\b)\S*", text) == []
    assert re.findall(r"[A-Za-z]:\\\S+", text) == []


def test_every_decision_is_in_the_list() -> None:
    """The list of decisions links to each record, and records are numbered without a gap."""
    folder = DOCS / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    linked = re.findall(r"\]\((\d[^)]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert linked == records
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
