"""Contract extension: a version's own types, and what the contract that it answers for has more."""

from __future__ import annotations

from dataclasses import replace

from gateway.contract.types import ArrayOf, Field, MapOf, ObjectOf, Param, Rows, Type


def extended_rows(own: Rows, promised: Rows) -> Rows:
    """What a request for the version may hold: its own inputs, and the promised ones it dropped.

    Where both have a field the version's type holds, because it is at least as free.
    """
    if own.named:
        fields = _fields(own.fields, promised.fields)
        labels = {f.name: label for f, label in zip(promised.fields, promised.labels, strict=True)}
        more = tuple(labels[field.name] for field in fields[len(own.fields) :])
        return replace(own, fields=fields, labels=own.labels + more)
    types = zip(own.fields, promised.fields, strict=True)
    fields = tuple(replace(mine, type=_type(mine.type, theirs.type)) for mine, theirs in types)
    return replace(own, fields=fields)


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
            return ArrayOf(_type(mine, theirs))
        case MapOf(mine), MapOf(theirs):
            return MapOf(_type(mine, theirs))
        case ObjectOf(fields, extras), ObjectOf(promised_fields):
            return ObjectOf(_fields(fields, promised_fields), extras)
        case _:
            return own
