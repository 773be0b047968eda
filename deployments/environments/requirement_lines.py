"""The lines of a requirements file, as pip reads it, from a source that isn't trusted.

A line is a requirement by PEP 508, a URL, an archive beside the model, or one of a closed list of
options. What is written for uv is put together from parts that were checked one by one, never
copied: so no line can be an option that isn't in the list, name a file outside the model's own, or
have an environment variable of the gateway's put into a URL. Pure.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from registry_sync.masking import shown

_MAX_FILES = 20
MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_LINES = 5000
# Of a line, of what is before its hashes, and of all the latter: reading takes time by the first.
_MAX_LINE = 64 * 1024
_MAX_HEAD = 2000
_MAX_HEADS = 512 * 1024
_MAX_PATH_PART = 255

_ARCHIVES = (".whl", ".tar.gz", ".zip")
_SCHEMES = frozenset({"https", "http", "git+https", "git+http", "git+ssh"})
_INDEX_SCHEMES = frozenset({"https", "http"})

_COMMENT = re.compile(r"(?:^|\s)#")
_FIRST_OPTION = re.compile(r"\s--?[A-Za-z]")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_SPECIFIER = re.compile(r"[A-Za-z0-9.!+_*<>=~,-]*\Z")
_MARKER = re.compile(r"(?:(?!--| -)[A-Za-z0-9_.,<>=!~()'\"+* -])*\Z")
# Without "$" (variables), quotes, backslashes and blanks.
_URL = re.compile(r"[A-Za-z0-9._~:/?#@!&()*+=%,\[\]-]+\Z")
_HOST = re.compile(r"[A-Za-z0-9\[](?:[A-Za-z0-9.:\]-]*)\Z")
_PATH = re.compile(r"[A-Za-z0-9._/+!=, @()~-]+\Z")
_EDITABLE = re.compile(r"(?:-e\s*|--editable(?:\s+|=))(?=git\+)")
_HASH = re.compile(r"(?:sha256|sha384|sha512):[0-9a-fA-F]{16,128}\Z")


class UnreadableLine(Exception):
    """A line that can't be taken, where it stands and why; all fit to be shown."""

    def __init__(self, why: str, *, file: str = "", line: str = "") -> None:
        super().__init__(why)
        self.why, self.file, self.line = why, file, line


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One package that is asked for: by its name, at a URL, or as an archive beside the model."""

    name: str | None
    extras: tuple[str, ...] = ()
    specifier: str = ""
    marker: str = ""
    url: str | None = None
    file: str | None = None
    hashes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it may be shown to anybody."""
        return shown(self._head(self.url or self.file))

    def text(self, file_url: Callable[[str], str]) -> str:
        """The line for uv; `file_url` says where an archive of the model's lies."""
        at = self.url if self.file is None else file_url(self.file)
        return " ".join([self._head(at), *(f"--hash={each}" for each in self.hashes)])

    def _head(self, at: str | None) -> str:
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        if at is None:
            what = f"{self.name}{extras}{self.specifier}"
        else:
            what = at if self.name is None else f"{self.name}{extras} @ {at}"
        # A URL ends at a blank.
        return f"{what} ; {self.marker}" if self.marker else what


@dataclass(slots=True, kw_only=True)
class Lines:
    """What some files said, in their order."""

    requirements: list[Wanted] = field(default_factory=list)
    constraints: list[Wanted] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def add_option(self, option: str) -> None:
        """Another option for uv, unless it is there."""
        if option not in self.options:
            self.options.append(option)


class LineReader:
    """Reads lines, and the files that they name by `-r` and `-c`.

    `read` gives the bytes of a file beside the model by its path there, or None.
    """

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read
        self._seen: set[tuple[str, bool]] = set()
        self._count = 0
        self._characters = 0
        self.lines = Lines()

    def take_file(self, path: str, *, is_constraint: bool = False) -> None:
        """Read a file of requirements or constraints; raises UnreadableLine."""
        if (path, is_constraint) in self._seen:
            return
        self._seen.add((path, is_constraint))
        if len(self._seen) > _MAX_FILES:
            raise UnreadableLine("names too many files", file=path)
        content = self._read(path)
        if content is None:
            raise UnreadableLine("isn't among the model's files", file=shown(path))
        self.take_text(decoded(content, path), file=path, is_constraint=is_constraint)

    def take_text(self, text: str, *, file: str, is_constraint: bool = False) -> None:
        """Read the text of such a file; raises UnreadableLine."""
        for line in _whole_lines(text):
            try:
                self._count_in(line)
                self._take_line(line, file, is_constraint=is_constraint)
            except UnreadableLine as problem:
                if problem.file:
                    raise
                raise UnreadableLine(problem.why, file=shown(file), line=shown(line)) from None

    def _count_in(self, line: str) -> None:
        self._count += 1
        self._characters += len(_split_off_options(line)[0])
        if self._count > _MAX_LINES:
            raise UnreadableLine("has too many lines")
        if self._characters > _MAX_HEADS:
            raise UnreadableLine("has more in it than is read")

    def _take_line(self, line: str, file: str, *, is_constraint: bool) -> None:
        # What is fetched is installed as well as if it were to be edited.
        line = _EDITABLE.sub("", line)
        if line.startswith("-"):
            self._take_options(line, file)
            return
        into = self.lines.constraints if is_constraint else self.lines.requirements
        into.append(wanted(line))

    def _take_options(self, line: str, file: str) -> None:
        words = iter(_words(line))
        for word in words:
            name, value = _split_option(word)
            if name in _FLAGS:
                if value is not None:
                    raise UnreadableLine(f"{name} has no value")
                _FLAGS[name](self.lines)
                continue
            if name not in _VALUED:
                raise UnreadableLine(_refusal(name))
            given = value if value is not None else next(words, None)
            if not given:
                raise UnreadableLine(f"{name} lacks its value")
            self._take_valued(_VALUED[name], given, file)

    def _take_valued(self, option: str, value: str, file: str) -> None:
        match option:
            case "--requirement" | "--constraint":
                self.take_file(_beside(file, value), is_constraint=option == "--constraint")
            case "--index-url" | "--extra-index-url":
                self.lines.add_option(f"{option} {_checked_url(value, _INDEX_SCHEMES)}")
            case "--find-links":
                self._take_links(value, file)
            case "--no-binary" | "--only-binary":
                for name in value.split(","):
                    self.lines.add_option(f"{option} {_package_or_all(name)}")
            case _:
                pass  # Read and left out.

    def _take_links(self, value: str, file: str) -> None:
        if "://" in value:
            self.lines.add_option(f"--find-links {_checked_url(value, _INDEX_SCHEMES)}")
        else:
            self.lines.folders.append(_beside(file, value.removeprefix("file:")))


_FLAGS: dict[str, Callable[[Lines], None]] = {
    "--no-index": lambda lines: lines.add_option("--no-index"),
    "--pre": lambda lines: lines.add_option("--pre"),
    "--require-hashes": lambda lines: lines.add_option("--require-hashes"),
    # uv takes wheels where there are some anyway.
    "--prefer-binary": lambda lines: None,
}
_VALUED = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-i": "--index-url",
    "-f": "--find-links",
    "--pypi-url": "--index-url",
    **{
        name: name
        for name in (
            "--requirement", "--constraint", "--index-url", "--extra-index-url", "--find-links",
            "--no-binary", "--only-binary",
            # Left out: who trusts a host is the gateway's operator (UV_INSECURE_HOST).
            "--trusted-host",
            # pip's own.
            "--use-feature",
        )
    },
}  # fmt: skip
_SHORT = ("-r", "-c", "-i", "-f", "-e")


def _refusal(name: str) -> str:
    if name in ("-e", "--editable"):
        return "is editable, which a model's own files can't be"
    return f"has the option {shown(name)}, which isn't taken from a model"


def decoded(content: bytes, path: str, *, most_bytes: int = MAX_FILE_BYTES) -> str:
    """A file's text, by its byte order mark or as UTF-8; raises UnreadableLine."""
    if len(content) > most_bytes:
        raise UnreadableLine("is too large", file=shown(path))
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise UnreadableLine("isn't UTF-8", file=shown(path)) from None


def own_path(path: str) -> str:
    """A path beside the model, in its normal form; raises UnreadableLine for any other."""
    if not _PATH.match(path):
        raise UnreadableLine("names a file by characters that aren't taken")
    normal = posixpath.normpath(path)
    if any(len(part) > _MAX_PATH_PART for part in normal.split("/")):
        raise UnreadableLine("names a file by too long a name")
    if normal.startswith(("/", "../")) or normal == "..":
        raise UnreadableLine("names a file that isn't one of the model's own")
    return normal


def _beside(file: str, value: str) -> str:
    """What a line of a file names by a path from there."""
    if "://" in value:
        raise UnreadableLine("names a file elsewhere, and only the model's own are read")
    return own_path(posixpath.join(posixpath.dirname(file), _slashes(value)))


def wanted(line: str) -> Wanted:
    """What one line asks for; raises UnreadableLine."""
    head, options = _split_off_options(line)
    return replace(_head_wanted(head), hashes=_hashes(_words(options)))


def _split_off_options(line: str) -> tuple[str, str]:
    """What comes before a line's options, with single blanks, and these; raises UnreadableLine for
    a line that would take long to be read."""
    if len(line) > _MAX_LINE:
        raise UnreadableLine("is too long")
    found = None if line.startswith("-") else _FIRST_OPTION.search(line)
    head, options = (line, "") if found is None else (line[: found.start()], line[found.start() :])
    if len(head) > _MAX_HEAD:
        raise UnreadableLine("is too long")
    return " ".join(head.split()), options


def _head_wanted(head: str) -> Wanted:
    by_path = _archive(head)
    if by_path is not None:
        return by_path
    if re.match(r"[A-Za-z][A-Za-z0-9+]*:", head):
        return _bare_url(head)
    return _named(head)


def _whole_lines(text: str) -> Iterator[str]:
    """Lines as pip has them: continued ones joined, without comments and blank ones."""
    pieces: list[str] = []
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            pieces.append(line[:-1])
            continue
        # A comment ends a continued line.
        pieces.append(f" {line}" if is_comment else line)
        yield from _without_comment("".join(pieces))
        pieces.clear()
    yield from _without_comment("".join(pieces))


def _without_comment(line: str) -> Iterator[str]:
    found = _COMMENT.search(line)
    bare = (line if found is None else line[: found.start()]).strip()
    if bare:
        yield bare


def _words(text: str) -> list[str]:
    if not any(each in text for each in "'\"\\"):
        return text.split()
    if len(text) > _MAX_HEAD:
        raise UnreadableLine("is too long")
    try:
        return shlex.split(text)
    except ValueError:
        raise UnreadableLine("has a quote that isn't closed") from None


def _split_option(word: str) -> tuple[str, str | None]:
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    for short in _SHORT:
        if word.startswith(short) and len(word) > len(short):
            return short, word[len(short) :].removeprefix("=")
    return word, None


def _hashes(words: list[str]) -> tuple[str, ...]:
    values: list[str] = []
    rest = iter(words)
    for word in rest:
        name, value = _split_option(word)
        if name != "--hash":
            raise UnreadableLine(_refusal(name))
        given = value if value is not None else next(rest, "")
        if not _HASH.match(given):
            raise UnreadableLine("has a hash that isn't one")
        values.append(given.lower())
    return tuple(sorted(set(values)))


def _slashes(path: str) -> str:
    """A path as it was written on another system."""
    return path.replace("\\", "/")


def _split_marker(text: str, separator: str) -> tuple[str, str]:
    head, _, marker = text.partition(separator)
    return head.strip(), _checked_marker(marker)


def _archive(head: str) -> Wanted | None:
    """An archive beside the model, `wheels/x.whl[extra] ; marker`; None where it isn't one."""
    if not any(each in head for each in _ARCHIVES):
        return None
    found = re.match(
        r"(?:(?P<name>[A-Za-z0-9._-]+)\s*(?:\[(?P<e1>[^\]]*)\])?\s*@\s*)?(?:file:(?!//))?"
        r"(?P<path>[^;\[@:]+?)(?:\[(?P<e2>[^\]]*)\])?\s*(?:;(?P<marker>.*))?\Z",
        head,
    )
    if found is None or not found["path"].endswith(_ARCHIVES):
        return None
    path = own_path(_slashes(found["path"]))
    extras = found["e1"] or found["e2"] or ""
    return Wanted(
        name=_checked_name(found["name"]) if found["name"] else _name_of(path),
        extras=_checked_extras(each.strip() for each in extras.split(",") if each.strip()),
        file=path,
        marker=_checked_marker(found["marker"] or ""),
    )


def _bare_url(head: str) -> Wanted:
    """A URL without a name before it; its file's name or `#egg=` may say it."""
    url, marker = _split_marker(head, " ;")
    checked = _checked_url(url, _SCHEMES)
    parts = urlsplit(checked)
    egg = re.search(r"(?:^|&)egg=([A-Za-z0-9._-]+)", parts.fragment)
    name = _checked_name(egg[1]) if egg else _name_of(parts.path)
    return Wanted(name=name, url=checked, marker=marker)


def _named(head: str) -> Wanted:
    try:
        parsed = Requirement(head)
    except (InvalidRequirement, RecursionError):
        raise UnreadableLine("isn't a requirement") from None
    specifier = str(parsed.specifier)
    if not _SPECIFIER.match(specifier):
        raise UnreadableLine("has a version that isn't one")
    return Wanted(
        name=_checked_name(parsed.name),
        extras=_checked_extras(parsed.extras),
        specifier=specifier,
        url=None if parsed.url is None else _checked_url(parsed.url, _SCHEMES),
        marker=_checked_marker("" if parsed.marker is None else str(parsed.marker)),
    )


def _name_of(path: str) -> str | None:
    file = posixpath.basename(path)
    try:
        if file.endswith(".whl"):
            return str(parse_wheel_filename(file)[0])
        return str(parse_sdist_filename(file)[0])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _checked_name(name: str) -> str:
    if not _NAME.match(name):
        raise UnreadableLine("has a name that isn't one")
    return canonicalize_name(name)


def _checked_extras(extras: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({_checked_name(each) for each in extras}))


def _checked_marker(marker: str) -> str:
    text = marker.strip()
    if not text:
        return ""
    try:
        parsed = Requirement(f"a ; {text}").marker
    except (InvalidRequirement, RecursionError):
        raise UnreadableLine("has a marker that can't be read") from None
    if not _MARKER.match(str(parsed)):
        raise UnreadableLine("has a marker with characters that aren't taken")
    return str(parsed)


def _checked_url(url: str, schemes: frozenset[str]) -> str:
    if "$" in url:
        raise UnreadableLine("has a variable in it, and a model gets none of the gateway's")
    if not _URL.match(url):
        raise UnreadableLine("has a URL with characters that aren't taken")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise UnreadableLine("has a URL that isn't one") from None
    if parts.scheme not in schemes:
        raise UnreadableLine(f"has a URL that doesn't start with {_either(schemes)}")
    if not _HOST.match(host):
        raise UnreadableLine("has a URL without a host")
    # What a program could take for an option.
    if any(each.startswith("-") for each in (parts.username or "", parts.path.partition("@")[2])):
        raise UnreadableLine("has a URL that isn't one")
    return url


def _either(schemes: frozenset[str]) -> str:
    *first, last = sorted(f"{each}://" for each in schemes)
    return f"{', '.join(first)} or {last}"


def _package_or_all(name: str) -> str:
    text = name.strip()
    return text if text in (":all:", ":none:") else _checked_name(text)
