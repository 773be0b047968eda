"""Contract extension: a version's own types, and what the contract that it answers for has more."""

from __future__ import annotations

from dataclasses import replace

from gateway.contract.types import ArrayOf, Field, MapOf, ObjectOf, Param, Rows, Type


def extended_rows(own: Rows, promised: Rows) -> Rows:
    """What a request for the version may hold: its own inputs, and the promised ones it dropped.
    Of outputs: what its answers may hold under both promises.

    Where both have a field the version's type holds, because it is at least as free; of an output
    it is at least as narrow.
    """
    if own.named:
        fields = _fields(own.fields, promised.fields)
        labels = {f.name: label for f, label in zip(promised.fields, promised.labels, strict=True)}
        more = tuple(labels[field.name] for field in fields[len(own.fields) :])
        return replace(own, fields=fields, labels=own.labels + more)
    types = zip(own.fields, promised.fields, strict=True)
    fields = tuple(replace(mine, type=_type(mine.type, theirs.type)) for mine, theirs in types)
    return replace(own, fields=fields)


def declared_rows(promised: Rows, own: Rows) -> Rows:
    """Of what callers were promised, what the version's own outputs declare: what it answers beside
    these may be something else by the same name."""
    if own.named and promised.named:
        fields = _declared(promised.fields, own.fields)
        names = {field.name for field in fields}
        labels = zip(promised.fields, promised.labels, strict=True)
        kept = tuple(label for field, label in labels if field.name in names)
        return replace(promised, fields=fields, labels=kept)
    types = zip(promised.fields, own.fields, strict=True)
    fields = tuple(replace(f, type=_declared_type(f.type, mine.type)) for f, mine in types)
    return replace(promised, fields=fields)


def extended_params(own: tuple[Param, ...], promised: tuple[Param, ...]) -> tuple[Param, ...]:
    """The version's params and the promised ones it dropped."""
    theirs = {param.name: param for param in promised}
    mine = tuple(
        replace(param, type=_type(param.type, theirs[param.name].type))
        if param.name in theirs
        else param
        for param in own
    )
    names = {param.name for param in own}
    return mine + tuple(param for param in promised if param.name not in names)


def _fields(own: tuple[Field, ...], promised: tuple[Field, ...]) -> tuple[Field, ...]:
    theirs = {field.name: field.type for field in promised}
    mine = tuple(
        replace(field, type=_type(field.type, theirs[field.name]))
        if field.name in theirs
        else field
        for field in own
    )
    names = {field.name for field in own}
    # nobody needs what the version dropped, so it is no longer asked for
    dropped = (replace(f, required=False) for f in promised if f.name not in names)
    return mine + tuple(dropped)


def _type(own: Type, promised: Type) -> Type:
    match own, promised:
        case ArrayOf(mine), ArrayOf(theirs):
            return replace(own, items=_type(mine, theirs))
        case MapOf(mine), MapOf(theirs):
            return replace(own, values=_type(mine, theirs))
        case ObjectOf(fields, extras), ObjectOf(promised_fields):
            return ObjectOf(_fields(fields, promised_fields), extras)
        case _:
            return own


def _declared(promised: tuple[Field, ...], own: tuple[Field, ...]) -> tuple[Field, ...]:
    mine = {field.name: field.type for field in own}
    return tuple(
        replace(field, type=_declared_type(field.type, mine[field.name]))
        if field.name in mine
        else field
        for field in promised
        if field.name in mine or field.required
    )


def _declared_type(promised: Type, own: Type) -> Type:
    match promised, own:
        case ArrayOf(theirs), ArrayOf(mine):
            return replace(promised, items=_declared_type(theirs, mine))
        case MapOf(theirs), MapOf(mine):
            return replace(promised, values=_declared_type(theirs, mine))
        case ObjectOf(fields, extras), ObjectOf(own_fields):
            return ObjectOf(_declared(fields, own_fields), extras)
        case _:
            return promised
