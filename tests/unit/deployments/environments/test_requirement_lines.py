"""Requirement lines from a source that isn't trusted."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.environments.requirement_lines import LineReader, Lines, UnreadableLine, wanted

# All that a line for uv may be: options of the index, a package by name, a URL, a file of ours.
OPTION = re.compile(
    r"(--index-url|--extra-index-url|--find-links) https?://[^\s$]+"
    r"|--no-index|--pre|--require-hashes"
    r"|(--no-binary|--only-binary) (:all:|:none:|[a-z0-9-]+)"
)
REQUIREMENT = re.compile(
    r"([a-z0-9]([a-z0-9-]*[a-z0-9])?(\[[a-z0-9,-]+\])?([A-Za-z0-9.!+_*<>=~,-]*| @ \S+)"
    r"|(https?|git\+https?|git\+ssh)://\S+|file:///artifacts/\S.*)"
    r"( ; [^\n#$\\]+)?( --hash=sha(256|384|512):[0-9a-f]+)*"
)


def read(text: str | bytes, **files: str) -> Lines:
    content = text.encode() if isinstance(text, str) else text
    named = {
        name.replace("_", ".", 1).replace("__", "/"): each.encode() for name, each in files.items()
    }
    reader = LineReader({"requirements.txt": content, **named}.get)
    reader.take_file("requirements.txt")
    return reader.lines


def texts(lines: Lines) -> list[str]:
    return [each.text(lambda path: f"file:///artifacts/{path}") for each in lines.requirements]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("scikit-learn==1.5.2", "scikit-learn==1.5.2"),
        ("Scikit_Learn == 1.5.2", "scikit-learn==1.5.2"),
        ("mlflow", "mlflow"),
        ("mlflow<3,>=2.9", "mlflow<3,>=2.9"),
        ("pandas (>=1.0)", "pandas>=1.0"),
        ("torch==2.5.0+cpu", "torch==2.5.0+cpu"),
        ("ray[serve,Default]==2.9", "ray[default,serve]==2.9"),
        ("six==1.16.0  # for old code", "six==1.16.0"),
        (
            "numpy<2; python_version < '3.11' and sys_platform == \"linux\"",
            'numpy<2 ; python_version < "3.11" and sys_platform == "linux"',
        ),
        ("a @ https://h/x.zip#sha256=ab ; os_name == 'nt'",
         'a @ https://h/x.zip#sha256=ab ; os_name == "nt"'),
        ("https://h.example/p/foo-1.0-py3-none-any.whl",
         "foo @ https://h.example/p/foo-1.0-py3-none-any.whl"),
        ("git+https://u:p@github.com/o/r.git@v1#egg=Thing&subdirectory=python",
         "thing @ git+https://u:p@github.com/o/r.git@v1#egg=Thing&subdirectory=python"),
        ("https://h/archive/main.zip", "https://h/archive/main.zip"),
        ("code/wheels/foo-1.0-py3-none-any.whl",
         "foo @ file:///artifacts/code/wheels/foo-1.0-py3-none-any.whl"),
        ("./wheels\\foo-1.0-py3-none-any.whl[x]; os_name=='posix'",
         'foo[x] @ file:///artifacts/wheels/foo-1.0-py3-none-any.whl ; os_name == "posix"'),
        ("file:code/foo-1.0.tar.gz", "foo @ file:///artifacts/code/foo-1.0.tar.gz"),
        ("foo @ file:code/foo-1.0.tar.gz", "foo @ file:///artifacts/code/foo-1.0.tar.gz"),
        (f"six==1.16.0 --hash=sha256:{'AB' * 32} --hash sha512:{'0' * 128}",
         f"six==1.16.0 --hash=sha256:{'ab' * 32} --hash=sha512:{'0' * 128}"),
    ],
)  # fmt: skip
def test_a_requirement_is_written_anew_in_its_normal_form(line: str, text: str) -> None:
    """Names, extras, versions, markers, URLs, archives of the model's and hashes are kept."""
    assert texts(read(line)) == [text]


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "-e git+https://h/r.git#egg=x --target=/",
        "-e https://h/x.zip",
        "--editable=.",
        "--target /",
        "--prefix=/usr",
        "--config-settings=a=b",
        "--python /usr/bin/python",
        "--index https://evil",
        "--extra-index https://evil",  # pip would complete it
        "--cache-dir=/etc",
        "--no-index --target=/",
        "six --global-option=x",
        "six --config-settings=--x=y",
        "six==1.0 --hash=md5:abcd",
        "six==1.0 --hash",
        "six===1;--index-url=https://evil",
        "six===${HOME}",
        "six ; sys_platform == 'x --index-url https://evil'",
        "six ; sys_platform == 'x -r /etc/passwd'",
        "six ; sys_platform == '${HOME}'",
        "--index-url https://${TOKEN}@h/simple",
        "--index-url https://h/$TOKEN/simple",
        "a @ https://h/${MLFLOW_TRACKING_TOKEN}/x.zip",
        "--index-url file:///etc",
        "--index-url",
        "--index-url=",
        "--extra-index-url ssh://h/x",
        "--extra-index-url https:///simple",
        "--extra-index-url 'https://h/a b'",
        '--extra-index-url "https://h/',
        "--find-links /etc",
        "--find-links ../../other",
        "--find-links file:///etc",
        "--no-index=1",
        "--no-binary -x",
        "--only-binary :some:",
        "-r /etc/passwd",
        "-r ../other/requirements.txt",
        "-r https://h/requirements.txt",
        "-r missing.txt",
        "-c code/../../constraints.txt",
        "/opt/wheels/foo-1.0-py3-none-any.whl",
        "../foo-1.0-py3-none-any.whl",
        "code/../../foo-1.0-py3-none-any.whl",
        "..\\foo-1.0-py3-none-any.whl",
        "foo @ file:///opt/foo-1.0-py3-none-any.whl",
        "file:///opt/foo-1.0-py3-none-any.whl",
        "file://h/foo-1.0-py3-none-any.whl",
        "~/foo-1.0-py3-none-any.whl/../../../x.whl",
        ".",
        "./code",
        "foo @ ./code",
        "foo @ git+file:///etc",
        "foo @ git+ext::sh -c touch% /x",
        "git+ssh://-oProxyCommand=x@h/r.git",
        "git+ssh://-oProxyCommand=x/r.git",
        "git+https://h/r.git@--upload-pack=x",
        "git+https://[h/r.git",
        "hg+https://h/r",
        "not a requirement",
        "six==",
        "six==not a version",
        "🐍==1",
        "six ; nonsense == '1'",
    ],
)
def test_a_line_that_is_anything_else_is_refused(line: str) -> None:
    """No option but those of the index, no file that isn't the model's, no variable gets through;
    what is told has the file and the line."""
    with pytest.raises(UnreadableLine) as refused:
        read("six==1.16.0\n" + line)
    assert refused.value.why
    assert refused.value.file in ("requirements.txt", "missing.txt")


def test_what_is_told_of_a_line_is_bounded_and_has_no_credentials() -> None:
    """Passwords and tokens of URLs aren't shown, and a long line is cut."""
    line = (
        "--index-url https://user:hunter22@h/s?token=abcdef --evil "  # pragma: allowlist secret
        + "x" * 5000  # pragma: allowlist secret
    )  # pragma: allowlist secret
    with pytest.raises(UnreadableLine) as refused:
        read(line)
    assert "hunter22" not in refused.value.line
    assert "abcdef" not in refused.value.line
    assert len(refused.value.line) <= 300


def test_lines_are_joined_and_comments_left_out_as_pip_does() -> None:
    """A backslash continues a line, a comment ends one, and a byte order mark is none of it."""
    text = (
        "\ufeff# head\n\nsix==1.16.0 \\\n    --hash=sha256:"
        + "a" * 64
        + "\nidna\\\n==3.7 # x\\\nin the comment\n# y\\\nattrs\n"
    )
    expected = ["six==1.16.0 --hash=sha256:" + "a" * 64, "idna==3.7", "attrs"]
    assert texts(read(text)) == expected
    assert texts(read("six\n".encode("utf-16"))) == ["six"]


def test_files_that_are_named_are_read_from_beside_the_one_that_names_them() -> None:
    """`-r` and `-c` lead to other files of the model's, each read once, also in a circle."""
    files = {
        "requirements.txt": b"-r code/more.txt\n-cconstraints.txt\nsix",
        "code/more.txt": b"--requirement=deeper.txt\n-r ../requirements.txt\nidna",
        "code/deeper.txt": b"attrs\n--constraint ../constraints.txt",
        "constraints.txt": b"numpy<2\n",
    }
    reader = LineReader(files.get)
    reader.take_file("requirements.txt")
    assert [each.name for each in reader.lines.requirements] == ["attrs", "idna", "six"]
    assert [str(each) for each in reader.lines.constraints] == ["numpy<2"]


def test_a_folder_of_archives_is_beside_the_file_that_names_it() -> None:
    """As a file that is named by `-r` or `-c` is."""
    files = {
        "requirements.txt": b"-r code/more.txt\n-f wheels",
        "code/more.txt": b"--find-links wheels\n-f ../links",
    }
    reader = LineReader(files.get)
    reader.take_file("requirements.txt")
    assert reader.lines.folders == ["code/wheels", "links", "wheels"]


@pytest.mark.parametrize("option", ["-r", "--requirement=", "-c", "--constraint"])
def test_a_file_at_a_url_is_refused_as_what_it_is(option: str) -> None:
    """What is told is no riddle of characters, and has no credentials."""
    with pytest.raises(UnreadableLine) as refused:
        read(f"{option} https://{'u:secret99'}@h/lines.txt".replace("= ", "="))
    assert refused.value.why == "names a file elsewhere, and only the model's own are read"
    assert "secret99" not in refused.value.line


def test_options_of_the_index_are_kept_and_what_is_the_operators_is_left_out() -> None:
    """Who trusts a host is the gateway's operator: that option does nothing."""
    lines = read(
        "-i https://h/simple\n--extra-index-url=https://u:secret99@g/simple --trusted-host g\n"  # pragma: allowlist secret  # noqa: E501
        "--find-links https://h/links\n-f wheels\n--no-index\n--pre\n--prefer-binary\n"
        "--only-binary :all:\n--no-binary Foo_Bar,baz\n--require-hashes\n"
    )
    assert lines.options == [
        "--index-url https://h/simple",
        "--extra-index-url https://u:secret99@g/simple",  # pragma: allowlist secret
        "--find-links https://h/links",
        "--no-index",
        "--pre",
        "--only-binary :all:",
        "--no-binary foo-bar",
        "--no-binary baz",
        "--require-hashes",
    ]
    assert lines.folders == ["wheels"]


@pytest.mark.parametrize("option", ["-e ", "-e", "--editable ", "--editable="])
def test_what_is_fetched_to_be_edited_is_fetched(option: str) -> None:
    """A package in a repository; a folder beside who logged the model isn't among its files."""
    assert texts(read(f"{option}git+https://h/r.git@v1#egg=six")) == [
        "six @ git+https://h/r.git@v1#egg=six"
    ]
    with pytest.raises(UnreadableLine, match="editable"):
        read(f"{option}./folder")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xff\x00", b"\xc3(", b"x" * 4 * 1024 * 1024 + b"xx", b"six\n" * 6000],
    ids=["binary", "latin", "large", "many lines"],
)
def test_what_is_no_reasonable_file_is_refused(content: bytes) -> None:
    """Neither other bytes than text nor more than there is reason for are taken."""
    with pytest.raises(UnreadableLine):
        read(content)


_PIECES = st.sampled_from(
    ["six", "==1.0", " ", "-e", "-r", " --", "--hash=", "sha256:", "a" * 64, ";", "os_name", "'",
     '"', "@", " @ ", "https://h/", "file:", "../", "/etc/", ".whl", "foo-1.0-py3-none-any.whl",
     "$", "${HOME}", "\\", "\n", "#", "[", "]", ",", "--index-url", "--extra-index-url=", "--pre",
     "--target", "-f", "=", "git+ssh://", "%2e", "\u2028", "\x00", "`", "x", "<2"]
)  # fmt: skip


@given(st.lists(_PIECES | st.text(max_size=3), max_size=12).map("".join))
@example("six ;os_name=='a'--target=/")
@example("six --hash=sha256:" + "a" * 64 + "--target=/")
@example("https://h/x ; --index-url=https://evil")
def test_nothing_reaches_uv_but_what_is_known(text: str) -> None:
    """Whatever the text, it is refused, or each line that comes of it is of a known form."""
    try:
        lines = read(text)
    except UnreadableLine:
        return
    for option in lines.options:
        assert OPTION.fullmatch(option), option
    for line in texts(lines):
        assert REQUIREMENT.fullmatch(line), line
        assert "--" not in re.sub(r" --hash=|https?://\S+|git\+\w+://\S+|file:\S+", "", line), line
    for folder in lines.folders:
        assert not folder.startswith(("/", "..")), folder
    for each in lines.requirements:
        assert each.file is None or not each.file.startswith(("/", "..")), each.file


@given(st.from_regex(r"[a-z][a-z0-9]{0,8}(==[0-9]{1,2}(\.[0-9]){0,2})?", fullmatch=True))
def test_a_normal_form_is_read_as_itself(line: str) -> None:
    """What was written anew is read again as the same."""
    once = wanted(line)
    assert wanted(once.text(lambda path: path)) == once
