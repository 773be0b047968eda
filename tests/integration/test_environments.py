"""Environments built by uv, for real: with Pythons of this machine, from packages that are made
here, and one from the public index that runs a model."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import uv

from deployments.environments.builder import Builder, BuildFailed, BuildSettings
from deployments.environments.bytecode import site_packages
from deployments.environments.model_needs import Needs, read_needs
from deployments.environments.store import Environment, Store
from tests.support.packages import make_sdist, make_wheel
from tests.support.processes import poll
from tests.support.processes_of import is_alive
from tests.support.pythons import python_of
from tests.support.supervised import asked, save_code, supervised

HERE = "{}.{}".format(*sys.version_info)
GATEWAY_MLFLOW = metadata.version("mlflow-skinny")
# Stands for what every environment has, so that most tests install a few lines.
OF_EVERY_MODEL = {"mlflow-skinny": GATEWAY_MLFLOW, "numpy": "2.1.0", "pandas": "2.2.0"}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    for name, version in OF_EVERY_MODEL.items():
        make_wheel(folder, name, version)
    for version in ("1.0.0", "2.0.0"):
        make_wheel(folder, "zoopkg", version)
    return folder


def offline(index: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "UV_FIND_LINKS": str(index), "UV_OFFLINE": "1", **variables}


def builder(folder: Path, environment: Mapping[str, str], **settings: Any) -> Builder:
    return Builder(
        Store(folder / "environments"),
        settings=BuildSettings(**settings),
        gateway_mlflow=GATEWAY_MLFLOW,
        environment=environment,
    )


def needs(*lines: str, python: str = HERE, **files: str) -> Needs:
    content = {
        "python_env.yaml": f"python: {python}.1\ndependencies: ['-r requirements.txt']",
        "requirements.txt": "\n".join(lines),
        **{name.replace("_", "."): text for name, text in files.items()},
    }
    found = read_needs(
        lambda path: content[path].encode() if path in content else None,
        gateway_python=sys.version_info[:2],
        source="fingerprint",
    )
    assert isinstance(found, Needs), found
    return found


def said(environment: Environment, code: str) -> str:
    """What a program says that runs in the environment."""
    command = [environment.interpreter, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def version_of(environment: Environment, module: str) -> str:
    return said(environment, f"import {module}; print({module}.version)")


@pytest.mark.parametrize("python", ["3.8", HERE, "3.13"])
async def test_two_versions_of_a_package_are_two_environments(
    tmp_path: Path, index: Path, python: str
) -> None:
    """Each has its own, with the model's Python and what a model's process imports, compiled; and
    what is there isn't built again."""
    if python_of(python) is None:
        pytest.skip(f"Python {python} isn't on this machine")
    build = builder(tmp_path, offline(index))
    one = await build.build(needs("zoopkg==1.0.0", python=python))
    two = await build.build(needs("zoopkg==2.0.0", python=python))
    assert [version_of(each, "zoopkg") for each in (one, two)] == ["1.0.0", "2.0.0"]
    assert said(one, "import sys; print(*sys.version_info[:2], sep='.')") == python
    assert version_of(one, "mlflow_skinny") == GATEWAY_MLFLOW
    assert one.python_version.startswith(f"{python}.")
    assert f"mlflow-skinny<={GATEWAY_MLFLOW},>=2" in one.requirements
    assert [each.digest for each in build.store.all()] == [one.digest, two.digest]
    assert await build.build(needs("zoopkg==1.0.0", python=python)) == one


async def test_what_environments_have_in_common_is_there_once(tmp_path: Path, index: Path) -> None:
    """Files and their byte code are hard links."""
    build = builder(tmp_path, offline(index))
    folders = [
        site_packages((await build.build(needs(line))).folder)
        for line in ("zoopkg==1.0.0", "zoopkg==2.0.0")
    ]
    for pattern in ("pandas.py", "__pycache__/pandas.*.pyc"):
        one, two = (next(folder.glob(pattern)) for folder in folders)
        assert one.samefile(two), pattern
    for pattern in ("zoopkg.py", "__pycache__/zoopkg.*.pyc"):
        one, two = (next(folder.glob(pattern)) for folder in folders)
        assert not one.samefile(two), pattern


async def test_a_requirement_that_cant_be_resolved_is_told_in_the_resolvers_words(
    tmp_path: Path, index: Path
) -> None:
    """With the two lines that can't be together, and nothing is left that counts."""
    make_wheel(index, "other", "1.0", requires=["zoopkg<2"])
    build = builder(tmp_path, offline(index))
    with pytest.raises(BuildFailed) as failed:
        await build.build(needs("zoopkg==2.0.0", "other==1.0"))
    assert failed.value.cause == "packages"
    text = " ".join(failed.value.lines)
    assert "all versions of other depend on zoopkg<2" in text
    assert "you require zoopkg==2.0.0" in text
    assert build.store.all() == []
    assert not any(path.is_dir() and path.name[0] != "." for path in build.store.folder.iterdir())
    assert build.store.building() == {}


async def test_a_package_that_cant_be_built_is_told_by_its_name(
    tmp_path: Path, index: Path
) -> None:
    """However much its build says: what couldn't be done comes first, and the reason last."""
    code = "for n in range(20000): print(n, flush=False)\nraise SystemExit('no compiler here')"
    make_sdist(index, "noisy", "1.0", build_code=code)
    with pytest.raises(BuildFailed) as failed:
        await builder(tmp_path, offline(index)).build(needs("noisy"))
    lines = failed.value.lines
    assert "noisy" in lines[0]
    assert any("no compiler here" in line for line in lines)
    assert len(lines) <= 21


async def test_credentials_of_an_index_arent_told(tmp_path: Path) -> None:
    """Neither the model's nor the operator's, whatever uv says."""
    operators = "http://operator:hunter22@127.0.0.1:9/simple"  # pragma: allowlist secret
    build = builder(tmp_path, {**os.environ, "UV_DEFAULT_INDEX": operators, "UV_HTTP_RETRIES": "0"})
    with pytest.raises(BuildFailed) as failed:
        await build.build(
            needs(
                "zoopkg",
                "--extra-index-url http://model:pass%40word@127.0.0.1:9/simple",  # pragma: allowlist secret  # noqa: E501
            )  # pragma: allowlist secret
        )
    text = "\n".join(failed.value.lines)
    assert "127.0.0.1" in text
    for secret in ("hunter22", "pass%40word", "pass@word"):
        assert secret not in text


async def test_a_python_that_isnt_here_is_told(tmp_path: Path, index: Path) -> None:
    """Nothing is downloaded, and one that is too old for a model's process is no other case."""
    build = builder(tmp_path, offline(index))
    for python in ("3.99", "3.7"):
        with pytest.raises(BuildFailed, match=python) as failed:
            await build.build(needs("zoopkg", python=python))
        assert failed.value.cause == "python"


async def test_archives_among_the_models_files_are_installed(tmp_path: Path, index: Path) -> None:
    """By their paths beside the model; one that isn't there is told, also behind a link out."""
    make_wheel(tmp_path / "artifacts" / "code" / "wheels", "private", "1.0", requires=["zoopkg"])
    make_wheel(tmp_path / "elsewhere", "linked", "1.0")
    build = builder(tmp_path, offline(index))
    wanted = needs("code/wheels/private-1.0-py3-none-any.whl")
    built = await build.build(wanted, artifacts=tmp_path / "artifacts")
    assert version_of(built, "private") == "1.0"
    assert version_of(built, "zoopkg") == "2.0.0"
    with pytest.raises(ValueError, match="own files"):
        await build.build(needs("code/wheels/linked-1.0-py3-none-any.whl"))
    (tmp_path / "artifacts" / "linked-1.0-py3-none-any.whl").symlink_to(
        tmp_path / "elsewhere" / "linked-1.0-py3-none-any.whl"
    )
    for name in ("missing", "linked"):
        with pytest.raises(BuildFailed, match="isn't among its files") as failed:
            await build.build(
                needs(f"{name}-1.0-py3-none-any.whl"), artifacts=tmp_path / "artifacts"
            )
        assert failed.value.cause == "files"


async def test_a_folder_of_wheels_constraints_hashes_and_extras(
    tmp_path: Path, index: Path
) -> None:
    """All that a requirements file of MLflow's says is heeded."""
    make_wheel(tmp_path / "artifacts" / "wheels", "private", "1.0")
    make_wheel(tmp_path / "artifacts" / "wheels", "private", "2.0")
    build = builder(tmp_path, offline(index))
    built = await build.build(
        needs("-f wheels", "private", "zoopkg", "-c constraints.txt", "absent; os_name == 'nt'",
              constraints_txt="zoopkg<2\nprivate<2"),
        artifacts=tmp_path / "artifacts",
    )  # fmt: skip
    assert [version_of(built, each) for each in ("private", "zoopkg")] == ["1.0", "1.0.0"]
    with pytest.raises(BuildFailed) as failed:
        await build.build(needs(f"zoopkg==1.0.0 --hash=sha256:{'0' * 64}"))
    assert "hash" in " ".join(failed.value.lines).lower()


def lock(project: Path, environment: Mapping[str, str]) -> None:
    command = [uv.find_uv_bin(), "lock", "--quiet", "--no-config", "--python", sys.executable]
    subprocess.run(command, cwd=project, env=environment, check=True)


async def test_a_uv_projects_lock_is_what_gets_installed(tmp_path: Path, index: Path) -> None:
    """Not what the requirements file beside it would lead to."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "a-model"\nversion = "1"\nrequires-python = ">=3.8"\n'
        'dependencies = ["zoopkg<2"]\n[tool.uv]\ncache-dir = "/nonexistent/written/by/a/model"\n'
    )
    lock(project, offline(index, UV_CACHE_DIR=str(tmp_path / "cache")))
    build = builder(tmp_path, offline(index))
    built = await build.build(needs("zoopkg==2.0.0", uv_lock=(project / "uv.lock").read_text()))
    assert version_of(built, "zoopkg") == "1.0.0"
    assert version_of(built, "mlflow_skinny") == GATEWAY_MLFLOW


async def test_building_a_package_sees_none_of_the_gateways_secrets(
    tmp_path: Path, index: Path
) -> None:
    """Its code runs; what is in the environment is what compilers and the network need. Where
    only wheels are allowed it doesn't run."""
    seen = tmp_path / "seen"
    code = f"import os; open({str(seen)!r}, 'a').write(' '.join(os.environ))"
    make_sdist(index, "built", "1.0", build_code=code)
    environment = offline(index, MODELMUX_KEYS="k", AWS_SECRET_ACCESS_KEY="k", CFLAGS="-O1")
    with pytest.raises(BuildFailed) as failed:
        await builder(tmp_path / "no", environment, wheels_only=True).build(needs("built==1.0"))
    assert failed.value.cause == "packages"
    assert not seen.exists()
    built = await builder(tmp_path, environment).build(needs("built==1.0"))
    assert version_of(built, "built") == "1.0"
    names = set(seen.read_text().split())
    assert "CFLAGS" in names
    assert not names & {"MODELMUX_KEYS", "AWS_SECRET_ACCESS_KEY"}


async def test_a_build_has_a_time_and_a_size(tmp_path: Path, index: Path) -> None:
    """What takes longer, or is larger, is ended and told, and leaves nothing."""
    make_sdist(index, "slow", "1.0", build_code="import time; time.sleep(600)")
    make_wheel(index, "large", "1.0", code=f"text = {'x' * 3_000_000!r}")
    quick = builder(tmp_path, offline(index), timeout_s=3.0)
    with pytest.raises(BuildFailed, match="longer than 3 s") as failed:
        await quick.build(needs("slow==1.0"))
    assert failed.value.cause == "too_long"
    small = builder(tmp_path, offline(index), max_bytes=2_000_000)
    with pytest.raises(BuildFailed) as failed:
        await small.build(needs("large==1.0"))
    assert failed.value.cause in ("too_large", "packages")
    assert Store(tmp_path / "environments").all() == []


async def test_a_full_disk_leaves_nothing(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the last step, when all is installed."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    build = builder(tmp_path, offline(index))
    with monkeypatch.context() as patched:
        patched.setattr(Store, "complete", full)
        with pytest.raises(BuildFailed, match="No space left") as failed:
            await build.build(needs("zoopkg"))
    assert failed.value.cause == "disk"
    assert not build.store.path(build.digest(needs("zoopkg"))).exists()
    assert await build.build(needs("zoopkg"), again=True)
    assert build.store.failure(build.digest(needs("zoopkg"))) is None


def counting(folder: Path) -> str:
    """Counts builds, and goes on once it may."""
    return f"""
import os, time
with open({str(folder / "builds")!r}, "a") as file:
    file.write(f"{{os.getpid()}}\\n")
while not os.path.exists({str(folder / "go-on")!r}):
    time.sleep(0.05)
"""


def builds(folder: Path) -> list[int]:
    path = folder / "builds"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(is_so: Callable[[], object]) -> None:
    await asyncio.to_thread(poll, is_so)


async def test_whoever_asks_at_once_gets_one_build(tmp_path: Path, index: Path) -> None:
    """In one gateway and in two with one folder; a caller who leaves doesn't end it."""
    make_sdist(index, "slow", "1.0", build_code=counting(tmp_path))
    one, two = (builder(tmp_path, offline(index)) for _ in range(2))
    wanted = needs("slow==1.0")
    asking = [asyncio.create_task(each.build(wanted)) for each in (one, one, one, two)]
    await until(lambda: builds(tmp_path))
    asking[0].cancel()
    assert list(two.store.building()) == [one.digest(wanted)]
    (tmp_path / "go-on").touch()
    found = await asyncio.gather(*asking[1:])
    assert len(set(found)) == 1
    assert len(builds(tmp_path)) == 1


async def test_no_more_are_built_at_once_than_may(tmp_path: Path, index: Path) -> None:
    """In whatever process: the others wait, and closing ends all."""
    for name in ("one", "two"):
        make_sdist(index, name, "1.0", build_code=counting(tmp_path))
    both = [builder(tmp_path, offline(index), most_at_once=1) for _ in range(2)]
    asking = [
        asyncio.create_task(build.build(needs(f"{name}==1.0")))
        for name, build in zip(("one", "two"), both, strict=True)
    ]
    await until(lambda: builds(tmp_path))
    (pid,) = builds(tmp_path)
    assert len(both[0].store.building()) == 1
    for build in both:
        await build.close()
    assert all(task.cancelled() for task in await _ended(asking))
    assert not is_alive(pid)
    assert build.store.all() == []
    assert build.store.building() == {}
    assert not any(build.store.failure(build.digest(needs(f"{n}==1.0"))) for n in ("one", "two"))


async def _ended(tasks: list[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    await asyncio.wait(tasks, timeout=30)
    return tasks


KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.integration.test_environments import builder, needs, offline
folder = Path(sys.argv[1])
asyncio.run(builder(folder, offline(folder / "index")).build(needs("slow==1.0")))
"""


def gateway_that_builds(folder: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], cwd=root)


async def test_what_a_build_has_started_ends_with_the_process_that_guards_it(
    tmp_path: Path, index: Path
) -> None:
    """A worker of Ray's that ends kills its children, and no others."""
    begun = tmp_path / "begun"
    code = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    make_sdist(index, "sleepy", "1.0", build_code=code)
    building = asyncio.create_task(builder(tmp_path, offline(index)).build(needs("sleepy")))
    await until(lambda: begun.exists() and begun.read_text())
    sleeping = int(begun.read_text())
    (guard,) = [pid for pid in children_of(os.getpid()) if "guarded_run" in command_of(pid)]
    os.kill(guard, signal.SIGKILL)
    await until(lambda: not is_alive(sleeping))
    with pytest.raises(BuildFailed):
        await building


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def test_a_gateway_that_is_killed_leaves_no_environment(tmp_path: Path, index: Path) -> None:
    """Nor a process; who comes after builds it anew, without waiting for long."""
    make_sdist(index, "slow", "1.0", build_code=counting(tmp_path))
    gateway = gateway_that_builds(tmp_path)
    await until(lambda: builds(tmp_path))
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    (pid,) = builds(tmp_path)
    poll(lambda: not is_alive(pid), what="the end of the build")
    after = builder(tmp_path, offline(index))
    assert after.store.all() == []
    assert after.store.find(after.digest(needs("slow==1.0"))) is None
    (tmp_path / "go-on").touch()
    built = await after.build(needs("slow==1.0"))
    assert version_of(built, "slow") == "1.0"
    assert len(builds(tmp_path)) == 2


async def test_pruning_clears_what_uv_keeps_first(tmp_path: Path, index: Path) -> None:
    """And an environment that stays is whole: what it shared with that is still its own."""
    build = builder(tmp_path, offline(index))
    one = await build.build(needs("zoopkg==1.0.0"))
    two = await build.build(needs("zoopkg==2.0.0"))
    assert any(build.store.cache.iterdir())
    removed = await build.prune(0, {two.digest})
    assert [each.digest for each in removed] == [one.digest]
    assert not build.store.cache.exists() or not any(build.store.cache.rglob("*.py"))
    assert version_of(two, "zoopkg") == "2.0.0"
    assert await build.build(needs("zoopkg==1.0.0"))


def index_is_there(folder: Path) -> bool:
    command = [uv.find_uv_bin(), "pip", "install", "--dry-run", "--quiet", "--target", str(folder)]
    return subprocess.run([*command, "six==1.16.0"], capture_output=True).returncode == 0


async def test_a_model_runs_in_an_environment_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Its process has the model's Python and the model's packages, and answers the gateway. Another
    Python is in `test_packages`."""
    python = "3.10"
    if python_of(python) is None:
        pytest.skip(f"Python {python} isn't on this machine")
    if not index_is_there(tmp_path):
        pytest.skip("the public index can't be reached")
    build = builder(tmp_path_factory.getbasetemp() / "shared", os.environ)
    environment = await build.build(needs("six==1.16.0", "pandas", python=python))
    model = save_code(
        tmp_path,
        "model",
        """
        import sys
        import six

        def predict(rows):
            own = six.__version__ == "1.16.0" and sys.version_info[:2]
            return [f"{own} {x}" for x in rows["x"]]
        """,
    )
    async with supervised(tmp_path, interpreter=environment.interpreter) as supervisor:
        outcome = await asked(supervisor, model, [1.0])
    assert outcome == ("ok", [f"({python.replace('.', ', ')}) 1.0"])
