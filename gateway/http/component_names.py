"""What a model is called in the OpenAPI document, in a way that client generators keep.

Generators make classes, functions and files of the keys of components and of operation ids. Each
does it in its own way, but all drop what is no letter or digit, and change the case of what begins
a word: of `a-b`, `a.b` and `a_b` all make `AB`, and two of three classes are lost. So a key is made
of words in lower case that survive this, and a name that is more than that has a digest of it
behind. A key depends on its model's name alone: whatever other models there are, a client that is
generated anew has the classes that it had (docs/decisions/0048).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

INPUT, PARAMS, OUTPUT, REQUEST, WRAPPED = "Input", "Params", "Output", "Request", "Wrapped"
"""The components of a model: `NAME.Input` and so on. `Wrapped` is inputs with params."""

_PARTS = (INPUT, PARAMS, OUTPUT, REQUEST, WRAPPED)

# A class that is made of a part's member begins with the part (`ModelInputAddress`), and what an
# operation takes with the operation (`PredictModelRequest`): a model whose
# name has such a word could be called the same.
_TAKEN_WORDS = frozenset({"predict", *(part.lower() for part in _PARTS)})

# Words of two letters and more, with digits behind, come back from `AbCd2` as they were; a letter
# alone does at the end only (`model_v2`): `a_b` and `AB` are `ab` again.
_PLAIN = re.compile(r"(?:[a-z]{2,}[0-9]*_)*[a-z]+[0-9]*")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONGEST = 60
"""Characters of a name; generators make names of files of it."""

_NAMELESS = "model"

_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_DIGEST_LETTERS = 8
_LIKE_A_DIGEST = re.compile(rf"(?:.*_)?[{_CONSONANTS}]{{{_DIGEST_LETTERS}}}")


def component_name(model: str) -> str:
    """The words for a model, `translation_model`: never another one's, nor such that a generator
    makes the same of both."""
    if _is_plain(model):
        return model
    return f"{_words_of(model)}_{_digest(model)}"


def operation_id(component: str) -> str:
    """The operation's id of predictions with the model of that component."""
    return f"predict_{component}"


def member_name(part: str, path: Sequence[str]) -> str:
    """What an object inside of a part is called, by the members that lead to it: `InputAddress`."""
    words = "_".join(_words_of(member) for member in path)
    return part + "".join(word.capitalize() for word in words.split("_"))


def told_apart(name: str, path: Sequence[str]) -> str:
    """Another name for what is called like something else: `InputABKqzvtrwm` for `["a-b"]`."""
    return name + _digest("/".join(path)).capitalize()


def _is_plain(model: str) -> bool:
    return (
        len(model) <= _LONGEST
        and _PLAIN.fullmatch(model) is not None
        and _LIKE_A_DIGEST.fullmatch(model) is None
        and _TAKEN_WORDS.isdisjoint(model.split("_"))
    )


def _words_of(model: str) -> str:
    """What can be read of a name in ASCII, as words; of a name in other scripts nothing can be."""
    ascii_text = unicodedata.normalize("NFKD", model.replace("ß", "ss")).encode("ascii", "ignore")
    words = "_".join(_WORD.findall(ascii_text.decode())).lower()[:_LONGEST].rstrip("_")
    return words if words[:1].isalpha() else f"{_NAMELESS}_{words}".rstrip("_")


def _digest(model: str) -> str:
    """Letters alone, and no vowels: one word to all generators, and none that means something."""
    whole = hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(whole, "big")
    letters = []
    for _ in range(_DIGEST_LETTERS):
        number, place = divmod(number, len(_CONSONANTS))
        letters.append(_CONSONANTS[place])
    return "".join(letters)
