"""Serialization: arrays, columns and nested values <-> a JSON description and raw buffers.

No pickle: what a model's process says must not be able to run code where it is read, and another
Python or NumPy must be able to read it. A description is plain JSON; buffers are little-endian
numbers as NumPy has them, texts are UTF-8 with the length of each.

| description | value | buffers |
| --- | --- | --- |
| `["v", value]` | the value itself: what JSON can say (and NaN, and the infinities) | |
| `["t", value]` | the same, with `{"$": …}` for what JSON has no form for (see `_tagged`) | |
| `["a", dtype, shape]` | an array | its elements |
| `["o", shape, items]` | an array of objects | those of the list of its elements |
| `["f"/"i"/"b", n]` | a list of floats, of ints of 64 bits, of bools | their numbers |
| `["g", array]` | a list of NumPy scalars of one type | those of the array |
| `["s"/"y", n, bytes]` | a list of texts, of byte strings | lengths, all of them joined |
| `["l", n, items]` | a list of lists | lengths, those of all their items in one list |
| `["r", n, array]` | a list of arrays of one dimension and one type | lengths, those joined |

Lengths are of 8 bytes each, and of texts they count characters.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from itertools import accumulate, chain
from typing import Any, List

import numpy as np

from .framing import MalformedMessage, aligned

_LENGTH = np.dtype("<i8")
_NUMBERS: dict[str, Any] = {"f": np.dtype("<f8"), "i": np.dtype("<i8"), "b": np.dtype("?")}
_KINDS = frozenset("biufcmMSU")
_FEW = 4
_MOST_DIGITS = 1 << 63

Description = List[Any]


class Writer:
    """Describes values, and collects the buffers that go with the descriptions, in their order.

    `tagged` where some value among them has no form in JSON (`dumped` finds out).
    """

    def __init__(self, tagged: bool = False) -> None:
        self.buffers: list[Any] = []
        self._tagged = tagged

    def describe(self, value: Any) -> Description:
        """The description of a value; raises TypeError for what has no form at all."""
        kind = type(value)
        if kind is np.ndarray:
            return self._array(value)
        if kind is list and len(value) > _FEW:
            return self._list(value)
        return self._whole(value)

    def _whole(self, value: Any) -> Description:
        return ["t", _tagged(value)] if self._tagged else ["v", value]

    def _array(self, array: Any) -> Description:
        if array.dtype.kind not in _KINDS or not array.dtype.itemsize:
            return ["o", list(array.shape), self.describe(array.ravel().tolist())]
        self.buffers.append(_raw(array))
        return ["a", array.dtype.str, list(array.shape)]

    def _list(self, values: list[Any]) -> Description:
        kinds = set(map(type, values))
        if len(kinds) != 1:
            return self._whole(values)
        (kind,) = kinds
        how = _LISTS.get(kind)
        if how is not None:
            return how(self, values)
        if issubclass(kind, np.generic) and not issubclass(kind, (np.flexible, np.object_)):
            return self._scalars(values)
        return self._whole(values)

    def _floats(self, values: list[Any]) -> Description:
        self.buffers.append(np.array(values, _NUMBERS["f"]).data)
        return ["f", len(values)]

    def _ints(self, values: list[Any]) -> Description:
        try:
            array = np.array(values, _NUMBERS["i"])
        except OverflowError:
            return self._whole(values)
        self.buffers.append(array.data)
        return ["i", len(values)]

    def _bools(self, values: list[Any]) -> Description:
        self.buffers.append(np.array(values, _NUMBERS["b"]).data)
        return ["b", len(values)]

    def _texts(self, values: list[Any]) -> Description:
        self._lengths(values)
        joined = "".join(values).encode("utf-8", "surrogatepass")
        self.buffers.append(joined)
        return ["s", len(values), len(joined)]

    def _byte_strings(self, values: list[Any]) -> Description:
        self._lengths(values)
        joined = b"".join(values)
        self.buffers.append(joined)
        return ["y", len(values), len(joined)]

    def _lists(self, values: list[Any]) -> Description:
        if self._tagged:
            # What is rare in one of them must not make all the others' numbers text.
            self._lengths(values)
            return ["l", len(values), self.describe(list(chain.from_iterable(values)))]
        mark = len(self.buffers)
        self._lengths(values)
        items = self.describe(list(chain.from_iterable(values)))
        if items[0] != "v":
            return ["l", len(values), items]
        del self.buffers[mark:]
        return ["v", values]

    def _arrays(self, values: list[Any]) -> Description:
        first = values[0].dtype
        if (
            first.kind not in _KINDS
            or not first.itemsize
            or any(each.ndim != 1 or each.dtype != first for each in values)
        ):
            return self._whole(values)
        self._lengths(values)
        return ["r", len(values), self._array(np.concatenate(values))]

    def _scalars(self, values: list[Any]) -> Description:
        first = values[0].dtype
        if any(each.dtype != first for each in values):  # datetimes of several units
            return self._whole(values)
        return ["g", self._array(np.array(values, first))]

    def _lengths(self, values: list[Any]) -> None:
        self.buffers.append(np.fromiter(map(len, values), _LENGTH, len(values)).data)


_LISTS: dict[type, Callable[[Writer, list[Any]], Description]] = {
    float: Writer._floats,
    int: Writer._ints,
    bool: Writer._bools,
    str: Writer._texts,
    bytes: Writer._byte_strings,
    list: Writer._lists,
    np.ndarray: Writer._arrays,
}


def _raw(array: Any) -> Any:
    """The elements in C order, without a copy where that can be had."""
    if not array.size:
        return b""
    if array.dtype.kind in "biufc" and array.flags.c_contiguous:
        return array.data
    return array.tobytes()


class Reader:
    """Reads values by their descriptions, which must come in the order in which they were made."""

    def __init__(self, body: bytearray) -> None:
        self._body = body
        self._at = 0

    def read(self, description: Description) -> Any:
        """The value. Raises MalformedMessage where there is no such value in the body."""
        try:
            return _READ[description[0]](self, *description[1:])
        except MalformedMessage:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise MalformedMessage(str(error)) from error

    def array(self, dtype: Any, count: int) -> Any:
        """The next `count` numbers, as an array over the body itself."""
        size = count * dtype.itemsize
        if count < 0 or self._at + size > len(self._body):
            raise MalformedMessage("a buffer ends beyond its message")
        if not size:
            return np.empty(0, dtype)
        found: Any = np.frombuffer(self._body, dtype, count, self._at)
        self._at += aligned(size)
        return found

    def _array(self, name: str, shape: list[int]) -> Any:
        dtype = np.dtype(name)
        if dtype.kind not in _KINDS or not dtype.itemsize:
            raise MalformedMessage("an array of a type that doesn't travel")
        count = 1
        for size in shape:
            count *= size
        if min(shape, default=0) < 0:
            raise MalformedMessage("a negative size")
        return self.array(dtype, count).reshape(shape)

    def _objects(self, shape: list[int], items: Description) -> Any:
        values = self.read(items)
        made: Any = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            made[i] = value
        return made.reshape(shape)

    def _scalars(self, description: Description) -> Any:
        return list(self.read(description))

    def _texts(self, count: int, size: int) -> list[str]:
        bounds = self._bounds(count)
        joined = self._bytes(size).decode("utf-8", "surrogatepass")
        return [joined[a:b] for a, b in zip(bounds, bounds[1:])]

    def _byte_strings(self, count: int, size: int) -> list[bytes]:
        bounds = self._bounds(count)
        joined = self._bytes(size)
        return [joined[a:b] for a, b in zip(bounds, bounds[1:])]

    def _lists(self, count: int, items: Description) -> list[Any]:
        bounds = self._bounds(count)
        flat = self.read(items)
        return [flat[a:b] for a, b in zip(bounds, bounds[1:])]

    def _arrays(self, count: int, items: Description) -> list[Any]:
        return [each.copy() for each in self._lists(count, items)]

    def _bounds(self, count: int) -> list[int]:
        return [0, *accumulate(self.array(_LENGTH, count).tolist())]

    def _bytes(self, size: int) -> bytes:
        return self.array(np.dtype("u1"), size).tobytes()  # type: ignore[no-any-return]


_READ: dict[str, Callable[..., Any]] = {
    "v": lambda reader, value: value,
    "t": lambda reader, value: _untagged(value),
    "a": Reader._array,
    "o": Reader._objects,
    "f": lambda reader, count: reader.array(_NUMBERS["f"], count).tolist(),
    "i": lambda reader, count: reader.array(_NUMBERS["i"], count).tolist(),
    "b": lambda reader, count: reader.array(_NUMBERS["b"], count).tolist(),
    "g": Reader._scalars,
    "s": Reader._texts,
    "y": Reader._byte_strings,
    "l": Reader._lists,
    "r": Reader._arrays,
}


def _tagged(value: Any) -> Any:
    """A value as JSON: `{"$": [kind, …]}` stands for what JSON has no form for."""
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if -_MOST_DIGITS < value < _MOST_DIGITS else {"$": ["i", hex(value)]}
    if kind is list:
        return [_tagged(each) for each in value]
    if kind is dict:
        tagged = {key: _tagged(each) for key, each in value.items()}
        return {"$": ["d", tagged]} if "$" in tagged else tagged
    if kind is tuple:
        return {"$": ["u", [_tagged(each) for each in value]]}
    if isinstance(value, np.ndarray):
        return {"$": _tagged_array(value)}
    if isinstance(value, (str, np.str_)):
        return str.__str__(value)
    if isinstance(value, bytes):
        return {"$": ["y", _text(bytes(value))]}
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return {"$": ["g", value.dtype.str, _text(value.tobytes())]}
    if kind is dt.datetime:
        return {"$": ["m", value.isoformat()]}
    raise TypeError(f"a {kind.__name__} doesn't travel")


def _tagged_array(array: Any) -> list[Any]:
    if array.dtype.kind not in _KINDS or not array.dtype.itemsize:
        return ["o", list(array.shape), [_tagged(each) for each in array.ravel().tolist()]]
    return ["a", array.dtype.str, list(array.shape), _text(array.tobytes())]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _untagged(value: Any) -> Any:
    if type(value) is list:
        return [_untagged(each) for each in value]
    if type(value) is not dict:
        return value
    if "$" not in value:
        return {key: _untagged(each) for key, each in value.items()}
    kind, *rest = value["$"]
    return _UNTAG[kind](*rest)


def _untagged_array(name: str, shape: list[int], text: str) -> Any:
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise MalformedMessage("an array of a type that doesn't travel")
    content = base64.b64decode(text)
    if not content:
        return np.zeros(shape, dtype)
    return np.frombuffer(bytearray(content), dtype).reshape(shape)


def _untagged_objects(shape: list[int], items: list[Any]) -> Any:
    made: Any = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        made[i] = _untagged(item)
    return made.reshape(shape)


_UNTAG: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "d": lambda items: {key: _untagged(each) for key, each in items.items()},
    "u": lambda items: tuple(_untagged(each) for each in items),
    "y": base64.b64decode,
    "a": _untagged_array,
    "o": _untagged_objects,
    "g": lambda name, text: _untagged_array(name, [1], text)[0],
    "m": dt.datetime.fromisoformat,
}

_dumps = json.JSONEncoder(separators=(",", ":")).encode


def dumped(describe: Callable[[Writer], Any]) -> Any:
    """The header and the buffers of a message: what `describe` makes of values by a `Writer`.

    Tried without tags first, which nearly all values do without. Raises TypeError for what has no
    form at all, and RecursionError for what is nested too deep.
    """
    writer = Writer()
    try:
        return _dumps(describe(writer)).encode("ascii"), writer.buffers
    except (TypeError, ValueError):
        writer = Writer(tagged=True)
        return _dumps(describe(writer)).encode("ascii"), writer.buffers


def loaded(header: bytes) -> Any:
    """What a header says. Raises MalformedMessage."""
    try:
        return json.loads(header)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(str(error)) from error
