"""The distribution, and versions with packages and Pythons of their own behind a gateway that was
installed from it alone: real environments, built by uv from packages that are made here and from
the index, on the Pythons of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
from mlflow.models import ModelSignature

from tests.support.packages import make_sdist, make_wheel
from tests.support.processes import Gateway, gateway, poll
from tests.support.pythons import python_of
from tests.support.registering import client, columns, register, register_fitted

NUMBER, TEXT = columns(("x", "double")), columns(("v", "string"))
ROOT = Path(__file__).parents[2]
FITTED = "packages - fitted"
TREE, PICKLE = "packages - older tree", "packages - newer pickle"
BUILT_S = 300.0
UV = [sys.executable, "-m", "uv", "--quiet"]

TELLS_ZOO = """
import mlflow
import pandas as pd

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import zoopkg
        return pd.DataFrame({"v": [zoopkg.version] * len(model_input)})

mlflow.models.set_model(Model())
"""

OTHER_PYTHON = "3.12"
OF_ITS_AGE = [
    "mlflow-skinny==2.22.1",
    "scikit-learn==1.5.2",
    "numpy<2",
    "pandas<3",
    "setuptools<80",
]

# Run by another Python: logs two models as MLflow's documentation does, and tells what one answers.
LOGS_MODELS = """
import json, sys, mlflow, pandas as pd, sklearn
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from sklearn.ensemble import RandomForestRegressor

uri, tree, pickle, *requirements = sys.argv[1:]
mlflow.set_tracking_uri(uri)
rows = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
model = RandomForestRegressor(n_estimators=3, random_state=0).fit(rows, [0.0, 2.0, 4.0, 6.0])
info = mlflow.sklearn.log_model(
    model, "tree", signature=infer_signature(rows, model.predict(rows)),
    registered_model_name=tree, pip_requirements=requirements,
)

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"v": ["%d.%d" % sys.version_info[:2]] * len(model_input)})

signature = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("string", "v")]))
mlflow.pyfunc.log_model(
    artifact_path="pickle", python_model=Model(), signature=signature,
    registered_model_name=pickle, pip_requirements=requirements,
)
answer = mlflow.pyfunc.load_model(info.model_uri).predict(rows)
print(json.dumps({"answer": list(answer), "sklearn": sklearn.__version__}))
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    for version in ("1.0.0", "2.0.0"):
        make_wheel(folder, "zoopkg", version)
    make_sdist(folder, "slowbuild", "1.0", build_code="import time; time.sleep(6)")
    make_sdist(folder, "cantbuild", "1.0", build_code="raise SystemExit('no Fortran compiler')")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*UV, "build", "--wheel", "--out-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("modelmux-*.whl")
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with nothing but the wheel and its own dependencies."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([*UV, "venv", "--python", sys.executable, str(environment)], check=True)
    into = ["--python", str(environment / "bin" / "python")]
    given = ["-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run([*UV, "pip", "install", *into, *given], check=True)
    return environment / "bin"


@pytest.fixture(scope="module")
def served(
    mlflow_uri: str, index: Path, bin_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway over models that bring packages of their own, and some that bring none; it was
    installed without the full MLflow, and without scikit-learn."""
    folder = tmp_path_factory.mktemp("packages")
    for version in ("1.0.0", "2.0.0"):
        _register_code(mlflow_uri, folder, "packages - zoo", f"zoopkg=={version}")
    _register_code(mlflow_uri, folder, "packages - broken", "zoopkg==9")
    _register_code(mlflow_uri, folder, "packages - unbuildable", "cantbuild==1.0")
    register(mlflow_uri, "packages - plain", lambda rows, params: rows, NUMBER, NUMBER)
    register_fitted(mlflow_uri, FITTED)
    _register_code(mlflow_uri, folder, "packages - shared", "zoopkg==1.0.0")
    tag = client(mlflow_uri).set_registered_model_tag
    tag("packages - shared", "modelmux.environment", "shared")
    # Of all who install on this machine: most of what is built here was downloaded for the tests.
    ask = [sys.executable, "-m", "uv", "cache", "dir"]
    cache = subprocess.run(ask, capture_output=True, text=True, check=True)
    environment = {
        "UV_FIND_LINKS": str(index),
        "UV_CACHE_DIR": cache.stdout.strip(),
        "MODELMUX_DEPLOYMENT": "shared",
    }
    options = ("--include", "packages - *", "--poll-interval-s", "2")
    with gateway(
        mlflow_uri, folder, *options, environment=environment, bin_folder=bin_folder
    ) as running:
        yield running


def _register_code(uri: str, folder: Path, name: str, *requirements: str) -> None:
    script = folder / "model.py"
    script.write_text(TELLS_ZOO)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(script),
        signature=ModelSignature(NUMBER, TEXT),
        registered_model_name=name,
        # Small ones: the whole of MLflow is tried by the models of other Pythons.
        pip_requirements=["mlflow-skinny", "numpy", "pandas", *requirements],
    )


@pytest.fixture(scope="module")
def elsewhere(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models that another Python logs, with packages of their age; what one of them answers."""
    base = python_of(OTHER_PYTHON)
    if base is None:
        pytest.skip(f"Python {OTHER_PYTHON} isn't here")
    folder = tmp_path_factory.mktemp("elsewhere")
    interpreter = str(folder / "venv" / "bin" / "python")
    subprocess.run([*UV, "venv", "--python", base, str(folder / "venv")], check=True)
    subprocess.run([*UV, "pip", "install", "--python", interpreter, *OF_ITS_AGE], check=True)
    file = folder / "logs_models.py"
    file.write_text(LOGS_MODELS)
    command = [interpreter, str(file), mlflow_uri, TREE, PICKLE, *OF_ITS_AGE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    told: dict[str, Any] = json.loads(line)
    return told


def _answered(served: Gateway, name: str, **headers: str) -> Any:
    """The answer for one row, once its packages are there; meanwhile it is 503 for no other
    reason, with the time to come again."""

    def ask() -> httpx.Response | None:
        response = served.predict(name, {"x": 1.0}, **headers)
        if response.status_code == 200:
            return response
        assert response.status_code == 503, response.text
        assert "being built" in response.json()["detail"], response.text
        assert 0 < int(response.headers["Retry-After"]) <= 30
        return None

    return poll(ask, timeout_s=BUILT_S, what=f"an answer of {name}").json()


def _version(served: Gateway, name: str, number: int = 1) -> dict[str, Any]:
    found = {each["version"]: each for each in served.model(name)["version_details"]}
    return dict(found[number])


def test_the_wheel_holds_all_that_is_needed(wheel: Path) -> None:
    """Packages, the docs page's assets and the demo are in it; tests are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "gateway/http/assets/swagger-ui-bundle.js",
        "gateway/http/assets/catalog/page.js",
        "gateway/http/assets/catalog/inter.woff2",
        "gateway/http/pages/templates/model.html",
        "gateway/contract/contract.py",
        "registry_sync/source.py",
        "deployments/cli/app.py",
        "deployments/examples/registration.py",
    ):
        assert needed in names
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_two_versions_of_one_package_answer_on_one_route(served: Gateway) -> None:
    """Each from its own: what is pinned is what it runs with, whichever was asked first."""
    assert _answered(served, "packages - zoo") == [{"v": "2.0.0"}]
    assert _answered(served, "packages - zoo", X_Model_Version="1") == [{"v": "1.0.0"}]
    assert _answered(served, "packages - zoo") == [{"v": "2.0.0"}]
    told = poll(
        lambda: (
            (told := _version(served, "packages - zoo")["environment"])["state"] == "ready" and told
        ),
        what="word of the environment",
    )
    assert told["kind"] == "own"
    assert told["why"] == "its own: needs zoopkg==1.0.0, which the gateway hasn't"


def test_a_model_without_needs_of_its_own_waits_for_nobody(
    served: Gateway, bin_folder: Path
) -> None:
    """It runs with the gateway's packages, whatever is being built; asked by the command."""
    command = [str(bin_folder / "modelmux"), "predict", "packages - plain", '{"x": 1}']
    asked = subprocess.run(
        [*command, "--url", served.url], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout) == [{"x": 1.0}]
    assert _version(served, "packages - plain")["environment"]["kind"] == "gateway"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("packages - broken", "zoopkg==9"),
        ("packages - unbuildable", "no Fortran compiler"),
    ],
)
def test_what_cannot_be_had_is_told_where_people_look(
    served: Gateway, name: str, line: str
) -> None:
    """The resolver's or the compiler's own words are in the list, on the page, and in the 503."""

    def failed() -> dict[str, Any] | None:
        told = served.model(name)["environment"]
        return told if told is not None and told["state"] == "failed" else None

    told = poll(failed, timeout_s=BUILT_S, what="the failed build")
    assert line in " ".join(told["lines"])
    assert served.model(name)["status"] == "unservable"

    def refusal() -> str:
        """A replica that is asked may try the build once more, and says that meanwhile."""
        response = served.predict(name, {"x": 1.0})
        assert response.status_code == 503
        return str(response.json()["detail"])

    poll(lambda: line in refusal(), timeout_s=BUILT_S, what="the reason in the 503")
    page = served.client.get(f"/catalog/{name}").text
    assert line in page
    metrics = served.client.get("/metrics").text
    labels = f'model="{name}",state="failed",version="1"'
    assert f"modelmux_default_environment_not_ready{{{labels}}} 1" in metrics


def test_a_model_of_scikit_learn_answers_where_that_isnt_installed(served: Gateway) -> None:
    """From packages of its own, as from the gateway's."""
    assert _answered(served, FITTED) == [{"y": pytest.approx(2.0)}]
    assert _version(served, FITTED)["environment"]["kind"] == "own"


def test_shared_packages_are_never_silently_others(served: Gateway) -> None:
    """A version that is to run with the gateway's, which lack something, has a warning that names
    it."""

    def warnings() -> list[str]:
        return list(served.model("packages - shared")["warnings"])

    (warning,) = poll(warnings, what="the warning")
    assert "zoopkg==1.0.0" in warning
    assert _version(served, "packages - shared")["environment"]["kind"] == "gateway"


def test_a_default_that_moves_waits_for_its_packages(
    served: Gateway, mlflow_uri: str, tmp_path: Path
) -> None:
    """It is held while they are built; callers are answered by the one before all the time."""
    name = "packages - moving"
    register(mlflow_uri, name, lambda rows, params: ["before"] * len(rows), NUMBER, TEXT)
    served.sync()
    assert served.predict(name, {"x": 1.0}).json() == [{"v": "before"}]
    _register_code(mlflow_uri, tmp_path, name, "zoopkg==1.0.0", "slowbuild==1.0")
    reasons: set[str] = set()

    def moved() -> bool:
        response = served.predict(name, {"x": 1.0})
        assert response.status_code == 200, response.text
        reasons.add((served.model(name)["held"] or {"reason": ""})["reason"])
        return bool(response.json() == [{"v": "1.0.0"}])

    poll(moved, timeout_s=BUILT_S, what="the new default")
    assert "Its environment is being built." in reasons


def test_a_model_of_another_python_and_scikit_learn_answers_as_there(
    served: Gateway, elsewhere: dict[str, Any]
) -> None:
    """Pickled by scikit-learn 1.5 on Python 3.12, it answers what MLflow says in that
    environment."""
    served.sync()
    poll(
        lambda: (served.model(TREE)["environment"] or {}).get("state") == "ready",
        timeout_s=BUILT_S, what="its environment",
    )  # fmt: skip
    response = served.predict(TREE, [{"x": float(x)} for x in range(4)])
    assert response.status_code == 200, response.text
    assert response.json() == elsewhere["answer"]
    assert elsewhere["sklearn"] == "1.5.2"
    why = _version(served, TREE)["environment"]["why"]
    assert f"needs Python {OTHER_PYTHON}, the gateway has" in why
    assert "scikit-learn==1.5.2" in why


def test_a_pickle_of_a_newer_python_runs_there(served: Gateway, elsewhere: dict[str, Any]) -> None:
    """The code of a class pickled by Python 3.12 can be run by no other; versions whose needs are
    the same share an environment."""
    assert elsewhere
    assert _answered(served, PICKLE) == [{"v": OTHER_PYTHON}]
    keys = {_version(served, name)["environment"]["key"] for name in (TREE, PICKLE)}
    assert len(keys) == 1
