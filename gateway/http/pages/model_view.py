"""What the page of one model shows, as values for its template."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.availability import Unloadable, why_version_is_silent
from gateway.catalog import LATEST, Catalog, ModelVersion, ServedModel
from gateway.contract import Contract
from gateway.contract.types import Rows, describe
from gateway.http.pages.forms import Form, default_text, form_of
from gateway.http.views import ModelSummary, VersionView, describe_version, summarize

VERSIONS_SHOWN = 20
"""So many of the newest versions are on the page at once; comparing signatures takes time."""

MORE_VERSIONS_SHOWN = 100
"""So many where somebody asks for more; `/models/{name}` has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRow:
    """One column, tensor or param. `note` says what the type doesn't."""

    name: str
    type: str
    required: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChoice:
    """A version that can be asked for, by the text of the header that asks for it."""

    selector: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPage:
    """One model. `form` and the rows are None or empty where nothing was ever promised."""

    summary: ModelSummary
    form: Form | None
    inputs: tuple[SignatureRow, ...]
    outputs: tuple[SignatureRow, ...]
    params: tuple[SignatureRow, ...]
    versions: tuple[VersionView, ...]
    named_choices: tuple[VersionChoice, ...]
    version_choices: tuple[VersionChoice, ...]
    total_versions: int
    timeout_s: float | None
    typing_note: str | None
    streams: bool
    """Whether the default version's answer can come piece by piece."""

    @property
    def more(self) -> int | None:
        """How many of the newest versions can be asked for, where that is more than are shown."""
        more = min(self.total_versions, MORE_VERSIONS_SHOWN)
        return more if more > len(self.versions) else None

    @property
    def default(self) -> VersionView | None:
        """The default version, where it is among those shown."""
        return next((each for each in self.versions if each.is_default), None)


def model_page(
    catalog: Catalog, name: str, unloadable: Unloadable, *, more_versions: bool = False
) -> ModelPage:
    """Everything the page shows about a model; raises ModelNotFound."""
    model = catalog.model(name)
    contract = model.promise
    shown = [
        describe_version(catalog, model, version, unloadable)
        for version in _shown(model, MORE_VERSIONS_SHOWN if more_versions else VERSIONS_SHOWN)
    ]
    return ModelPage(
        summary=summarize(model, unloadable),
        form=None if contract is None else form_of(contract, model.request_example()),
        inputs=() if contract is None else _input_rows(contract),
        outputs=() if contract is None else _output_rows(contract),
        params=() if contract is None else _param_rows(contract),
        versions=tuple(shown),
        named_choices=_named(model),
        version_choices=_numbered(model, {view.version: view for view in shown}, unloadable),
        total_versions=len(model.versions),
        timeout_s=model.options.timeout_s,
        typing_note=None if model.default is None else model.default.typing_note,
        streams=model.default is not None and model.default.streamable,
    )


def registered_on(created_at_ms: int) -> str:
    """A day in UTC; nothing where the registry didn't say."""
    if created_at_ms <= 0:
        return ""
    return datetime.fromtimestamp(created_at_ms / 1000, UTC).strftime("%Y-%m-%d")


def _shown(model: ServedModel, at_least: int) -> list[ModelVersion]:
    """The newest versions, and whatever is the default, held or has an alias."""
    newest_first = list(reversed(model.versions))
    notable = model.notable
    return [
        version
        for place, version in enumerate(newest_first)
        if place < at_least or version.number in notable
    ]


def _named(model: ServedModel) -> tuple[VersionChoice, ...]:
    names = [
        VersionChoice(selector=alias, label=f"{alias} (version {number})")
        for alias, number in sorted(model.aliases.items())
    ]
    if model.latest is not None:
        label = f"{LATEST} (version {model.latest.number})"
        names.append(VersionChoice(selector=LATEST, label=label))
    return tuple(names)


def _numbered(
    model: ServedModel, known: dict[int, VersionView], unloadable: Unloadable
) -> tuple[VersionChoice, ...]:
    return tuple(
        VersionChoice(
            selector=str(version.number),
            label=_label(
                version,
                known.get(version.number),
                is_silent=why_version_is_silent(model, version, unloadable) is not None,
            ),
        )
        for version in reversed(model.versions)
    )


def _label(version: ModelVersion, view: VersionView | None, *, is_silent: bool) -> str:
    remark = ""
    if is_silent:
        remark = ", can't be served"
    elif view is not None and view.is_default:
        remark = ", the default"
    elif view is not None and view.compatible is False:
        remark = ", breaks the contract"
    return f"{version.number}{remark}"


def _input_rows(contract: Contract) -> tuple[SignatureRow, ...]:
    """The model's own inputs, and what is still taken for callers of an earlier contract."""
    own = {field.name for field in contract.inputs.fields}
    rows = _rows(contract.inputs, "input")
    if not contract.accepted.named:
        return rows
    extra = [field for field in contract.accepted.fields if field.name not in own]
    note = "Of an earlier contract: still taken, and left out."
    return (
        *rows,
        *(
            SignatureRow(name=f.name, type=describe(f.type), required=f.required, note=note)
            for f in extra
        ),
    )


def _output_rows(contract: Contract) -> tuple[SignatureRow, ...]:
    return () if contract.promised is None else _rows(contract.promised, "output")


def _rows(rows: Rows, what: str) -> tuple[SignatureRow, ...]:
    several = len(rows.fields) > 1
    return tuple(
        SignatureRow(
            name=field.name if rows.named else f"{what} {number}" if several else f"the {what}",
            type=describe(field.type),
            required=field.required,
            note="" if rows.named else "Has no name.",
        )
        for number, field in enumerate(rows.fields, start=1)
    )


def _param_rows(contract: Contract) -> tuple[SignatureRow, ...]:
    return tuple(
        SignatureRow(
            name=param.name,
            type=describe(param.type),
            required=None,
            note=f"Default: {default_text(param)}",
        )
        for param in contract.accepted_params
    )
