"""The files of a version, over a store that is a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from registry_sync.version_files import ArtifactStores, FilesUnreadable, VersionFiles


class Counting(LocalArtifactRepository):
    """A folder that knows what it was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self.asked: list[str] = []

    def list_artifacts(self, path: str | None = None) -> Any:
        self.asked.append(f"list {path}")
        return super().list_artifacts(path)  # type: ignore[no-untyped-call]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self.asked.append(f"get {remote_file_path}")
        super()._download_file(remote_file_path, local_path)  # type: ignore[no-untyped-call]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    version = tmp_path / "1" / "model"
    (version / "code" / "wheels" / "inner").mkdir(parents=True)
    (version / "MLmodel").write_text("flavors: {}")
    (version / "model.pkl").write_text("weights")
    (version / "code" / "wheels" / "a-1-py3-none-any.whl").write_text("a")
    (version / "code" / "wheels" / "inner" / "b.txt").write_text("b")
    (tmp_path / "1" / "secret").write_text("of another")
    return tmp_path


def test_what_is_there_is_read_and_the_rest_is_none(store: Path) -> None:
    """A path that no listing has is never asked for, wherever it leads to."""
    repository = Counting(store)
    files = VersionFiles(repository, below="1/model")
    assert files.read("MLmodel") == b"flavors: {}"
    assert files.read("code/wheels/inner/b.txt") == b"b"
    nowhere = ("conda.yaml", "code", "no/such/file", "MLmodel/x", "../secret", "/etc/hosts", "")
    for path in nowhere:
        assert files.read(path) is None, path
    assert [asked for asked in repository.asked if asked.startswith("get")] == [
        "get 1/model/MLmodel", "get 1/model/code/wheels/inner/b.txt",
    ]  # fmt: skip


def test_nothing_is_asked_for_twice(store: Path) -> None:
    """A folder is listed once, and a file that is known to be there is one request."""
    repository = Counting(store / "1" / "model")
    files = VersionFiles(repository)
    assert files.read_known("MLmodel") == b"flavors: {}"
    assert repository.asked == ["get MLmodel"]
    for path in ("MLmodel", "conda.yaml", "requirements.txt", "MLmodel"):
        files.read(path)
    assert repository.asked == ["get MLmodel", "list None"]


def test_files_and_what_is_directly_in_folders_are_fetched(store: Path, tmp_path: Path) -> None:
    """Under their own paths; the weights and what isn't there are left where they are."""
    files = VersionFiles(Counting(store), below="1/model")
    into = tmp_path / "into"
    files.fetch(["code/wheels", "MLmodel", "absent.whl", "../secret"], into)
    fetched = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    assert fetched == {"MLmodel", "code/wheels/a-1-py3-none-any.whl"}


def test_one_that_is_too_large_isnt_read_into_memory(store: Path) -> None:
    """A requirements file may name the weights."""
    with (store / "1" / "model" / "model.pkl").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    repository = Counting(store)
    with pytest.raises(FilesUnreadable, match=r"model\.pkl is larger"):
        VersionFiles(repository, below="1/model").read("model.pkl")
    assert repository.asked == ["list 1/model"]


class Foreign(Exception):
    """An exception of a store's client, which is of no kind that is known here."""


def test_whatever_a_store_raises_is_told_without_its_words(store: Path) -> None:
    """They carry addresses and keys."""

    class Away(Counting):
        def list_artifacts(self, path: str | None = None) -> Any:
            raise Foreign("http://user:secret@store")  # pragma: allowlist secret

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            raise Foreign("http://user:secret@store")  # pragma: allowlist secret

    files = VersionFiles(Away(store))
    for read in (files.read, files.read_known):
        with pytest.raises(FilesUnreadable, match="Foreign") as caught:
            read("MLmodel")
        assert "secret" not in str(caught.value)


def test_a_store_that_nothing_here_can_open_is_told(tmp_path: Path) -> None:
    """As one whose client isn't installed."""
    stores = ArtifactStores(tracking_uri=str(tmp_path), registry_uri=str(tmp_path))
    with pytest.raises(FilesUnreadable, match="can't be opened"):
        stores.open("unknown-scheme://somewhere/model")


def test_what_a_tracking_server_hands_out_is_one_repository() -> None:
    """Each version's files are below the folder that its own root names."""
    stores = ArtifactStores(tracking_uri="http://127.0.0.1:9", registry_uri="http://127.0.0.1:9")
    one, two = (stores.open(f"mlflow-artifacts:/1/models/{name}/artifacts/") for name in "ab")
    assert one._repository is two._repository
    assert two._below == "1/models/b/artifacts"
