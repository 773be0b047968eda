"""What a version needs, by the files of MLflow 1.x to 3.x."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.environments.model_needs import (
    Needs,
    Unreadable,
    completed,
    locked,
    read_needs,
)
from deployments.environments.project_lock import project_name
from deployments.environments.requirement_lines import wanted

OF_MLFLOW_3 = {
    "MLmodel": """
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
""",
    "python_env.yaml": """
python: 3.10.13
build_dependencies:
- pip==23.2.1
- setuptools==65.5.0
- wheel
dependencies:
- -r requirements.txt
""",
    "requirements.txt": "mlflow==3.4.0\nscikit-learn==1.5.2\n-c constraints.txt\n",
    "constraints.txt": "numpy<2\n",
    "conda.yaml": """
channels:
- conda-forge
dependencies:
- python=3.10.13
- pip<=23.2.1
- conda-forge::graphviz=8
- pip:
  - mlflow==3.4.0
  - scikit-learn==1.5.2
name: mlflow-env
""",
}
LOCK = """version = 1
[[package]]
name = "six"
version = "1.16.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "my-model"
version = "0.1.0"
source = { virtual = "." }
"""


def read(files: dict[str, str], source: str = "fingerprint") -> Needs | Unreadable:
    content = {name: text.encode() for name, text in files.items()}
    return read_needs(content.get, gateway_python=(3, 11), source=source)


def needs(files: dict[str, str], source: str = "fingerprint") -> Needs:
    found = read(files, source)
    assert isinstance(found, Needs), found
    return found


def names(found: Needs) -> list[str]:
    return [str(each) for each in found.requirements]


def test_mlflow_3_says_its_python_and_its_packages() -> None:
    """The patch of the Python is left out, so is pip; what only conda has is named."""
    found = needs(OF_MLFLOW_3)
    assert found.python == "3.10"
    assert names(found) == ["mlflow==3.4.0", "scikit-learn==1.5.2"]
    assert [str(each) for each in found.build_requirements] == ["setuptools==65.5.0", "wheel"]
    assert [str(each) for each in found.constraints] == ["numpy<2"]
    assert found.conda_only == ("conda-forge::graphviz=8",)
    assert found.flavors == ("python_function",)
    assert found.lock is None


def test_mlflow_1_says_it_in_a_file_of_condas() -> None:
    """A pip part and a Python, under the name that the MLmodel file says; conda's Pythons bring
    setuptools, which such models import."""
    found = needs(
        {
            "MLmodel": "flavors:\n  python_function:\n    env: env/my.yml\n",
            "env/my.yml": "dependencies:\n- python=3.8.2\n- scikit-learn=0.22\n- pip\n"
            "- pip:\n  - mlflow\n  - cloudpickle==1.3.0\n",
        }
    )
    assert found.python == "3.8"
    assert names(found) == ["cloudpickle==1.3.0", "mlflow"]
    assert [str(each) for each in found.build_requirements] == ["setuptools<81", "wheel"]
    assert found.conda_only == ("scikit-learn=0.22",)


def test_requirements_go_before_condas_pip_part() -> None:
    """Models of MLflow 1.20 to 1.25 have both and no python_env.yaml."""
    files = {name: OF_MLFLOW_3[name] for name in ("conda.yaml", "constraints.txt")}
    assert names(needs({**files, "requirements.txt": "six==1.16.0"})) == ["six==1.16.0"]


def test_a_version_without_such_files_needs_nothing() -> None:
    """It gets the gateway's Python."""
    assert needs({}) == Needs(python_minor=(3, 11))


def test_a_python_that_yaml_takes_for_a_number_is_one() -> None:
    """3.10 isn't 3.1."""
    assert needs({"python_env.yaml": "python: 3.10\n"}).python == "3.10"


@pytest.mark.parametrize(
    ("dependency", "python"),
    [
        ("python=3.9", "3.9"), ("python==3.9.7", "3.9"), ("python>=3.9", "3.9"),
        ("python=3.9.7=h12debd9_1", "3.9"), ("python 3.9.*", "3.9"), ("python>=3.9,<3.10", "3.9"),
        ("conda-forge::python=3.9", "3.9"), ("python<=3.9", "3.9"), ("python", "3.11"),
        ("python=3", "3.11"),
    ],
)  # fmt: skip
def test_condas_python_in_every_form(dependency: str, python: str) -> None:
    """The first Python that is named, as MLflow takes it; the gateway's where none is."""
    assert needs({"conda.yaml": f"dependencies: ['{dependency}']"}).python == python


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"python_env.yaml": "python: ["}, "python_env.yaml"),
        ({"python_env.yaml": "- a"}, "python_env.yaml"),
        ({"python_env.yaml": "[" * 5000}, "python_env.yaml"),
        ({"python_env.yaml": "python: {a: b}"}, "python_env.yaml"),
        ({"python_env.yaml": "python: newest"}, "python_env.yaml"),
        ({"python_env.yaml": "dependencies: six"}, "python_env.yaml"),
        ({"python_env.yaml": "dependencies: [[six]]"}, "python_env.yaml"),
        ({"python_env.yaml": "dependencies: ['--target=/']"}, "python_env.yaml"),
        ({"python_env.yaml": "dependencies: ['-r requirements.txt']"}, "requirements.txt"),
        ({"python_env.yaml": "build_dependencies: ['--target=/']"}, "python_env.yaml"),
        ({"conda.yaml": "dependencies: ['python<3.8']"}, "conda.yaml"),
        ({"conda.yaml": "dependencies: ['*']"}, "conda.yaml"),
        ({"conda.yaml": "dependencies: [{pip: ['-e .']}]"}, "conda.yaml"),
        ({"MLmodel": "flavors: {python_function: {env: [a]}}"}, None),
        ({"MLmodel": "flavors: {python_function: {env: ../x.yaml}}"}, "MLmodel"),
        ({"MLmodel": "flavors: {python_function: {env: {conda: [x]}}}"}, "MLmodel"),
        ({"uv.lock": "\udcff"}, None),
        ({"requirements.txt": "six\nbroken line here"}, "requirements.txt"),
    ],
)
def test_what_cant_be_read_is_told_by_its_file(files: dict[str, str], file: str | None) -> None:
    """An answer that may be shown, not an exception; None is for what is no fault."""
    content = {name: text.encode("utf-8", "surrogateescape") for name, text in files.items()}
    found = read_needs(content.get, gateway_python=(3, 11), source="")
    if file is None:
        assert isinstance(found, Needs | Unreadable)
    else:
        assert isinstance(found, Unreadable)
        assert found.file == file
        assert str(found)


@given(
    st.dictionaries(
        st.sampled_from(["MLmodel", "python_env.yaml", "conda.yaml", "requirements.txt"]),
        st.binary(max_size=80)
        | st.sampled_from([text.encode() for text in OF_MLFLOW_3.values()])
        | st.text("abc:-[]{}'\"&*!\n =<>.310/", max_size=80).map(str.encode),
    )
)  # fmt: skip
def test_whatever_the_files_are_it_is_needs_or_a_reason(files: dict[str, bytes]) -> None:
    """Reading never raises."""
    found = read_needs(files.get, gateway_python=(3, 11), source="")
    assert isinstance(found, Needs | Unreadable)


def digest(files: dict[str, str], source: str = "a", platform: str = "linux") -> str:
    return needs(files, source).digest(platform)


def test_versions_that_need_the_same_have_the_same_digest() -> None:
    """The patch of the Python, the order of lines, comments and pip make no difference."""
    other = {
        **OF_MLFLOW_3,
        "python_env.yaml": "python: '3.10.4'\nbuild_dependencies: [wheel, 'setuptools==65.5.0']\n"
        "dependencies: ['-r requirements.txt']\n",
        "requirements.txt": "# x\n-c constraints.txt\nScikit-Learn == 1.5.2\n"
        "mlflow==3.4.0\nmlflow==3.4.0",
    }
    assert digest(other, "b") == digest(OF_MLFLOW_3)


@pytest.mark.parametrize(
    "changed",
    [
        {"requirements.txt": "mlflow==3.4.0\nscikit-learn==1.5.1\n-c constraints.txt\n"},
        {"requirements.txt": OF_MLFLOW_3["requirements.txt"] + "--extra-index-url https://h/s"},
        {"constraints.txt": "numpy<1.26\n"},
        {"python_env.yaml": OF_MLFLOW_3["python_env.yaml"].replace("3.10", "3.12")},
        {"python_env.yaml": OF_MLFLOW_3["python_env.yaml"].replace("65.5.0", "65.5.1")},
        {"uv.lock": LOCK},
    ],
)
def test_versions_that_need_something_else_have_another_digest(changed: dict[str, str]) -> None:
    """Whatever is installed, and with which Python, is in it."""
    assert digest({**OF_MLFLOW_3, **changed}) != digest(OF_MLFLOW_3)


def test_archives_of_the_models_own_arent_anothers_of_the_same_name() -> None:
    """With them the version's fingerprint counts, and the machine's platform always does."""
    files = {"requirements.txt": "six\ncode/wheels/foo-1.0-py3-none-any.whl"}
    assert needs(files).files == ("code/wheels/foo-1.0-py3-none-any.whl",)
    assert digest(files, "a") != digest(files, "b")
    assert digest({"requirements.txt": "six\n-f wheels"}, "a") != digest(
        {"requirements.txt": "six\n-f wheels"}, "b"
    )
    assert digest({}, platform="linux-x86_64") != digest({}, platform="linux-aarch64")


def test_what_a_models_process_imports_is_added_where_it_is_lacking() -> None:
    """MLflow, no newer than the gateway's, NumPy and pandas; nothing where MLflow is named."""

    def added(*lines: str) -> set[str]:
        before = Needs(python_minor=(3, 11), requirements=tuple(map(wanted, lines)))
        return set(names(completed(before, gateway_mlflow="3.17.2"))) - set(lines)

    assert added("six") == {"mlflow-skinny<=3.17.2,>=2", "numpy", "pandas"}
    assert added("numpy==1.26.4") == {"mlflow-skinny<=3.17.2,>=2", "pandas"}
    assert added("mlflow-skinny==2.9.2", "pandas==2.0.0") == {"numpy"}
    assert added("mlflow==2.9.2") == set()
    assert added("mlflow @ git+https://github.com/mlflow/mlflow") == set()


def test_with_packages_of_ours_not_all_have_hashes() -> None:
    """The models' own are looked at all the same: uv does where there are some."""
    before = needs({"requirements.txt": f"--require-hashes\nsix==1.16.0 --hash=sha256:{'a' * 64}"})
    after = completed(before, gateway_mlflow="3.17.2")
    assert (before.options, after.options) == (("--require-hashes",), ())
    assert any(each.hashes for each in after.requirements)


def test_a_lock_is_of_one_project_and_its_lines_replace_the_others() -> None:
    """What uv exports from it is read as strictly as a requirements file."""
    found = needs({"requirements.txt": "six\n", "uv.lock": LOCK})
    assert found.lock == LOCK
    assert project_name(LOCK) == "my-model"
    exported = locked(
        found, "six==1.16.0 ; python_full_version < '3.14' \\\n    --hash=sha256:" + "a" * 64
    )
    assert isinstance(exported, Needs)
    assert names(exported) == ['six==1.16.0 ; python_full_version < "3.14"']
    assert exported.constraints == ()
    assert isinstance(locked(found, "-e ."), Unreadable)
    assert isinstance(locked(found, "./dist/six-1.16.0.tar.gz"), Unreadable)


def test_what_a_lock_is_exported_without_is_kept() -> None:
    """A project's extras are in the requirements that MLflow logs; the lock's export lacks them."""
    found = needs({"requirements.txt": "six==1.15.0\nidna==3.4\n", "uv.lock": LOCK})
    exported = locked(found, "six==1.16.0\n")
    assert isinstance(exported, Needs)
    assert names(exported) == ["idna==3.4", "six==1.16.0"]


def test_a_package_that_pip_installs_is_not_told_as_condas() -> None:
    """Also where conda has it under the same name."""
    text = "dependencies: [python=3.9, numpy=1.26, conda-forge::libgomp, {pip: [numpy==1.26.4]}]"
    assert needs({"conda.yaml": text}).conda_only == ("conda-forge::libgomp",)


REPEATED = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "six" + " " * 900_000 + "x"},
        {"requirements.txt": "a" * 900_000},
        {"requirements.txt": "six " + "\t " * 400_000 + ".whl"},
        {"requirements.txt": "six --hash='" + "x" * 900_000},
        {"requirements.txt": "six" + ",".join(["==1.0"] * 100_000)},
        {"requirements.txt": "six; " + "(" * 1900 + "os_name=='x'"},
        {"requirements.txt": "six; " + " and ".join(["os_name=='x'"] * 50_000)},
        {"requirements.txt": f"-r {'x' * 5000}.txt"},
        {"requirements.txt": f"-r {'xy/' * 300}{'x' * 300}.txt"},
        {"requirements.txt": ("x" * 1500 + "\n") * 2000},
        {"conda.yaml": REPEATED + "dependencies: {a: *k}"},
        {"conda.yaml": "dependencies: " + "[" * 400_000},
        {"conda.yaml": "dependencies:\n" + "- a=1\n" * 100_000},
        {"conda.yaml": "dependencies: &a {x: *a}"},
        {"python_env.yaml": "python: 3." + "9" * 100_000},
        {"python_env.yaml": REPEATED + "python: '3.11'\ndependencies: {a: *k}"},
        {"MLmodel": REPEATED + "flavors: {python_function: {env: {conda: *k}}}"},
    ],
    ids=lambda files: "{}: {:.30}".format(*next(iter(files.items()))),
)
@pytest.mark.timeout(20)
def test_no_file_takes_long_to_be_refused(files: dict[str, str]) -> None:
    """Whatever its lines repeat, and whatever its YAML nests or refers to."""
    assert isinstance(read(files), Unreadable)


def test_a_wide_models_file_and_a_long_lock_are_read() -> None:
    """Thousands of columns and hundreds of packages make several megabytes."""
    wide = OF_MLFLOW_3["MLmodel"] + "signature: '" + "x" * 3_000_000 + "'\n"
    lock = LOCK + "# " + "x" * 3_000_000
    found = needs({**OF_MLFLOW_3, "MLmodel": wide, "uv.lock": lock})
    assert (found.python, found.lock) == ("3.10", lock)


@pytest.mark.parametrize(
    "lock",
    [
        "",
        "[",
        "package = 1",
        "[[package]]\nname = 'a'",
        LOCK.replace("my-model", 'x\\"]\\n[tool.uv]'),
        LOCK.replace('virtual = "."', 'virtual = "sub"'),
        LOCK + LOCK.replace("version = 1\n", ""),
    ],
)
def test_a_lock_without_one_project_of_its_own_has_no_name(lock: str) -> None:
    """And nothing of it gets into the project file that uv is given."""
    assert project_name(lock) is None
