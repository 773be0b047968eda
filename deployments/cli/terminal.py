"""Terminal output: tables, colours, a status line. Pipes and files get plain lines.

Owns the two consoles, how listings, answers and problems look, and that no text from outside is
obeyed by rich or by the terminal. Knows no HTTP and no Ray.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.json import JSON
from rich.live import Live
from rich.protocol import rich_cast
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

CANNOT = 2
NO = 1

# What a terminal would obey, as what can be seen: Unicode has pictures of the C0 controls and DEL.
_PICTURES = (
    {code: chr(0x2400 + code) for code in range(0x20)}
    | {0x7F: "\u2421"}
    | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
)
_IN_LINES = {code: picture for code, picture in _PICTURES.items() if chr(code) not in "\n\t"}
_IN_JSON = {code: f"\\u{code:04x}" for code in _PICTURES if chr(code) not in "\n\r\t"}


class _Console(Console):
    """Shows text as it is, names and answers of others too: without markup and emoji codes, and
    with control characters to be seen, not obeyed."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(
            stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See `Console.render`: cells of tables and parts of groups come by here, too."""
        text = rich_cast(renderable)
        if isinstance(text, str):
            text = text.translate(_IN_LINES)
        elif isinstance(text, Text):
            text = text.copy()
            text.plain = text.plain.translate(_IN_LINES)
        return super().render(text, options)


out = _Console()
err = _Console(stderr=True)

_UNFOLDED = 10_000
_COLUMNS_AT_MOST = 8
_ROWS_AT_MOST = 100
_KEY_SHOWN = 8
_ERASE_LINE = "\r\x1b[2K"


def fail(message: str, code: int = CANNOT) -> typer.Exit:
    """Say in one line on standard error why a command ends; the exit to raise."""
    err.print(f"modelmux: {message}")
    return typer.Exit(code)


def show(renderable: RenderableType, *, console: Console = out) -> None:
    """Print what is wider than a line: folded to the terminal's width."""
    console.print(renderable, soft_wrap=False)


def unfolded() -> Console:
    """Standard output for tables that are to be as wide as they are: the terminal folds them, or a
    pager doesn't."""
    return _Console(width=_UNFOLDED)


def write_row(*cells: str) -> None:
    """A line on standard output for pipes and files, with tabs between the cells."""
    sys.stdout.write("\t".join(cell.translate(_PICTURES) for cell in cells) + "\n")


def write_json(text: str) -> None:
    """JSON on standard output, for pipes and files. Control characters that it has unescaped are
    escaped, which says the same."""
    sys.stdout.write(text.translate(_IN_JSON) + "\n")


def models_table(listing: Mapping[str, Any], *, wide: bool = False) -> Group:
    """What a gateway serves: one row a model, its state in colour, what is held and why; where it
    is `wide`, with `more_cells`."""
    models = listing["models"]
    more = ("Default because", "Warnings", "Predictions", "Description") if wide else ()
    table = _table("Model", "State", "Default", "Versions", "Aliases", "Packages", *more)
    for model in models:
        aliases = ", ".join(f"{alias} → {number}" for alias, number in model["aliases"].items())
        table.add_row(
            Text(model["name"], "bold"),
            _state(model),
            str(model["default_version"] or "–"),
            ", ".join(map(str, model["versions"])),
            aliases,
            environment_of(model),
            *(more_cells(model) if wide else ()),
        )
    return Group(table, Text(_count(models), "dim"), *_registry_notes(listing))


def more_cells(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the default is what it is, warnings, the path of predictions, and the description."""
    return (
        model["default_reason"] or "",
        " ".join(model["warnings"]),
        model["predict_url"],
        model["description"],
    )


def environment_of(model: Mapping[str, Any]) -> str:
    """The packages of a model's default version, in some words."""
    told = model.get("environment")
    if told is None:
        return ""
    state = told["state"]
    if told["seconds"] is not None:
        state = f"{state} for {told['seconds']:.0f} s"
    return str(told["kind"]) if state == "ready" else f"{told['kind']}, {state}"


def _state(model: Mapping[str, Any]) -> Text:
    ready = model["status"] == "ready"
    state = Text(model["status"], "green" if ready else "red")
    if model["reason"] is not None:
        state.append(f"\n{model['reason']}", "red")
    held = model["held"]
    if held is not None:
        state.append(f"\nversion {held['version']} held: {held['reason']}", "yellow")
    for difference in () if held is None else held["differences"]:
        state.append(f"\n  {difference['message']}", "yellow dim")
    return state


def _count(models: Sequence[Mapping[str, Any]]) -> str:
    parts = [counted(len(models), "model")]
    held = sum(model["held"] is not None for model in models)
    warned = sum(bool(model["warnings"]) for model in models)
    unserved = sum(model["status"] != "ready" for model in models)
    parts += [f"{held} held"] if held else []
    parts += [f"{unserved} not served"] if unserved else []
    parts += [f"{warned} with warnings (--wide)"] if warned else []
    return " · ".join(parts)


def _registry_notes(listing: Mapping[str, Any]) -> Iterator[Text]:
    registry = listing.get("registry") or {}
    for name in ("problem", "snapshot_problem"):
        if registry.get(name):
            yield Text(registry[name], "yellow")


def history_table(entries: Sequence[Mapping[str, Any]]) -> Group:
    """What happened to a model, the newest first."""
    table = _table("When (UTC)", "What", "From", "To", "Why")
    for entry in entries:
        table.add_row(*(Text(cell) for cell in history_cells(entry)))
    return Group(table if entries else Text("Nothing is noted."))


def history_cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """One entry: when, what, from, to, why."""
    what = entry["event"].replace("_", " ")
    return (
        entry["at"].replace("T", " ")[:19],
        f"{what} {entry['alias']}" if entry["alias"] else what,
        str(entry["before"] or "-"),
        str(entry["after"] or "-"),
        entry["why"] or "",
    )


def environments_table(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Which environment each version runs in: one row a version, its state in colour, and why. Of a
    key there is enough to find its folder; all of it would leave the reasons no room."""
    table = _table("Model", "Version", "Packages", "State", "Key", "Size", "Why")
    colours = {"ready": "green", "failed": "red"}
    for row in rows:
        name, version, kind, state, key, size, why, *lines = environment_cells(row)
        told = Text(why)
        for line in lines:
            told.append(f"\n  {line}", "red")
        state_text = Text(state, colours.get(state, "yellow"))
        short = Text(key[:_KEY_SHOWN], "dim")
        table.add_row(Text(name, "bold"), version, kind, state_text, short, size, told)
    return Group(table, Text(_counted_states(rows), "dim"))


def environment_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What is told of a version's environment, and as further cells what the tools said of it."""
    size = row["size_bytes"]
    why = [row["why"], row["warning"], row["reason"]]
    return (
        row["model"],
        str(row["version"]),
        row["environment"] or "-",
        row["state"],
        row["key"] or "-",
        "-" if size is None else megabytes(size),
        " · ".join(filter(None, why)),
        *row["lines"],
    )


def _counted_states(rows: Sequence[Mapping[str, Any]]) -> str:
    states = [row["state"] for row in rows]
    parts = [counted(len(states), "version")]
    others = ("building", "failed", "missing")
    parts += [f"{states.count(each)} {each}" for each in others if each in states]
    return " · ".join(parts)


def counted(count: int, what: str) -> str:
    """So many of something: `1 model`, `2 models`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def megabytes(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e6:,.1f} MB"


def answer(body: str) -> RenderableType:
    """An answer: a table where its rows are records of single values, else coloured JSON."""
    rows = json.loads(body)
    names = _columns_of(rows)
    if names is None:
        return JSON(body, indent=2)
    table = _table("", *names)
    for number, row in enumerate(rows, start=1):
        table.add_row(Text(str(number), "dim"), *(_value(row.get(name)) for name in names))
    return table


def _columns_of(rows: Any) -> list[str] | None:
    """The columns of a table of these rows, None where a table would hide more than it shows."""
    if not isinstance(rows, list) or not 0 < len(rows) <= _ROWS_AT_MOST:
        return None
    if not all(isinstance(row, dict) and row for row in rows):
        return None
    if any(isinstance(value, list | dict) for row in rows for value in row.values()):
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names if len(names) <= _COLUMNS_AT_MOST else None


def _value(value: Any) -> Text:
    if isinstance(value, str):
        return Text(value, "green")
    return Text(json.dumps(value), "dim" if value is None else "cyan")


def summary(*, version: str | None, request_id: str | None, milliseconds: float) -> Text:
    """Who answered, and how long it took from here."""
    parts = [f"version {version}" if version else "", f"{milliseconds:.0f} ms"]
    parts.append(f"request {request_id}" if request_id else "")
    return Text(" · ".join(filter(None, parts)), "dim")


def problem(document: Mapping[str, Any], retry_after: str | None) -> Group:
    """A problem document: what, where (by pointer), and what is different."""
    told: list[RenderableType] = [
        Text.assemble(
            (f"{document['status']} {document['code']}", "bold red"), f"  {document['detail']}"
        )
    ]
    if document.get("errors"):
        table = _table("Where", "What is expected")
        for error in document["errors"]:
            table.add_row(Text(error["pointer"] or "/", "bold"), Text(error["message"]))
        told.append(table)
    if document.get("differences"):
        sides = ("Contract", f"Version {document.get('requested_version', '')}")
        told.append(differences_table(document["differences"], sides))
    if retry_after is not None:
        told.append(Text(f"Try again in {retry_after} s.", "yellow"))
    return Group(*told)


def differences_table(differences: Sequence[Mapping[str, Any]], sides: tuple[str, str]) -> Table:
    """What two signatures differ in, field by field."""
    table = _table("Where", "Field", "Change", *sides)
    for found in differences:
        table.add_row(
            found["section"],
            Text(found["pointer"] or "/", "bold"),
            found["change"].replace("_", " "),
            Text(found["contract"] or "–", "red"),
            Text(found["candidate"] or "–", "green"),
        )
    return table


def agreement_table(columns: Sequence[Mapping[str, Any]]) -> Table:
    """In how many rows columns differ, and numbers by how much."""
    table = _table("Column", "Rows that differ", "Median", "99%", "Largest difference")
    for each in columns:
        amounts = [each[name] for name in ("median", "p99", "max")]
        told = ["–" if amount is None else f"{amount:.6g}" for amount in amounts]
        table.add_row(each["column"], f"{each['different']} of {each['rows']}", *told)
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    return table


class StatusLine:
    """A line that says what is being done, where standard output is a terminal; else nothing.

    Lines that other processes write to the same terminal come through `clear`, so that they don't
    run into it.
    """

    def __init__(self, say: Callable[[str], None], *, live: bool) -> None:
        self._say = say
        self._spinner = Spinner("dots")
        self._drawn: Live | None = None
        self._live = live and out.is_terminal

    @property
    def is_live(self) -> bool:
        """Whether anybody sees it."""
        return self._live

    def show(self, what: str) -> None:
        """Show what is being done now; where nothing is live, nothing."""
        if not self._live:
            return
        if self._drawn is None:
            # Neither stream is redirected: what isn't ours isn't to be seen.
            self._drawn = Live(
                self._spinner,
                console=out,
                transient=True,
                refresh_per_second=12.5,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._drawn.start()
        self._spinner.update(text=Text(what))

    def tell(self, what: str) -> None:
        """Begin something worth a line of its own where no line is live."""
        if self._live:
            self.show(what)
        else:
            self._say(what)

    def clear(self) -> None:
        """Make place for a line of somebody else; the status is drawn again below it."""
        if self._drawn is not None:
            out.file.write(_ERASE_LINE)
            out.file.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None


@contextmanager
def status_line(say: Callable[[str], None], *, live: bool) -> Iterator[StatusLine]:
    """A status line that is gone when the block ends."""
    line = StatusLine(say, live=live)
    try:
        yield line
    finally:
        line.end()
