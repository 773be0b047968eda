"""What is wrong with a model's tags for capture, as `/models` says it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.capture.columns import known_columns, says_all
from gateway.catalog import ModelOptions, ModelVersion, UntypableSignature, contract_of
from gateway.contract import Contract


def capture_warnings(
    options: ModelOptions, versions: Sequence[ModelVersion], *, captures: bool
) -> Iterator[str]:
    """Nothing is kept though a tag says so, or a column is to be left out that there isn't."""
    if options.capture and not captures:
        yield "Tag modelmux.capture has no effect: the gateway has no capture_url."
    if not options.capture_drop:
        return
    contracts = list(_contracts(versions))
    if contracts and all(map(says_all, contracts)):
        known = frozenset().union(*map(known_columns, contracts))
        unknown = [name for name in options.capture_drop if name not in known]
        if unknown:
            yield (
                f"Tag modelmux.capture_drop names {', '.join(unknown)}, and no version has such a "
                "column."
            )


def _contracts(versions: Sequence[ModelVersion]) -> Iterator[Contract]:
    for version in versions:
        if version.is_servable:
            try:
                yield contract_of(version.signature or "")
            except UntypableSignature:
                continue
