"""`modelmux environments`, as far as it asks no registry."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from deployments.cli.app import app


def test_a_folder_that_cannot_be_cleared_is_told_in_one_line(tmp_path: Path) -> None:
    """With exit code 2, and no stack trace: it is the folder that is to be mended."""
    (tmp_path / "environments" / ("0" * 32)).mkdir(parents=True)
    (tmp_path / "environments" / ".locks").write_text("a file in its place")
    done = CliRunner().invoke(app, ["environments", "prune", "--state-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "can't be cleared" in done.output
    assert "Traceback" not in done.output


def test_nothing_to_prune_is_no_failure(tmp_path: Path) -> None:
    """Nor is a state folder that nobody has used yet, and none is made."""
    folder = tmp_path / "new"
    done = CliRunner().invoke(app, ["environments", "prune", "--state-dir", str(folder)])
    assert (done.exit_code, folder.exists()) == (0, False)
    assert "0 environments removed" in done.output
