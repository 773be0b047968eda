"""Environments with other projects' clients, and a gateway on real ports for them."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow.types import ColSpec, DataType, ParamSpec, TensorSpec
from mlflow.types.schema import Array

from gateway.http.predict.body import HttpLimits
from gateway.http.protocols.inference_v2.grpc_server import InferenceServer, InferEndpoint
from tests.support.catalogs import catalog, served, version
from tests.support.echo_gateway import EchoGateway, signature
from tests.support.pyfunc_gateway import listening

MODELS = {
    "types": signature(
        [
            ColSpec("double", "x"),
            ColSpec("long", "n"),
            ColSpec("boolean", "b"),
            ColSpec("string", "s", required=False),
            ColSpec("binary", "bin"),
            ColSpec("datetime", "d"),
            ColSpec(Array(DataType.double), "arr"),
            ColSpec("float", "f"),
        ],
        params=[ParamSpec("times", "long", 1)],
    ),
    "plain": signature([ColSpec("double", "a"), ColSpec("string", "t")]),
    "tensor": signature([TensorSpec(np.dtype("float32"), (-1, 2, 3))]),
}

Run = Callable[[str, str], str]
"""Runs a program of `tests/clients` in an environment with packages; what it wrote."""


@pytest.fixture(scope="session")
def addresses() -> Iterator[tuple[str, str]]:
    """Host and port of HTTP and of gRPC, of a gateway whose models answer their inputs."""
    gateway = EchoGateway(MODELS["plain"])
    gateway.feed.catalog = catalog(
        *(served(version(1, text, fingerprint=name), name=name) for name, text in MODELS.items())
    )
    limits = HttpLimits(max_body_bytes=1 << 26)
    infer = InferEndpoint(gateway.service, limits=limits, access=None)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def started() -> tuple[InferenceServer, int]:
        server = InferenceServer(gateway.service, infer, access=None, journal=None, limits=limits)
        return server, await server.start("127.0.0.1:0")

    server, grpc_port = asyncio.run_coroutine_threadsafe(started(), loop).result(30)
    with listening(gateway.app) as port:
        yield f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"
    asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, addresses: tuple[str, str]) -> Run:
    """Environments are kept in pytest's cache, by what is in them."""
    cache = request.config.cache
    assert cache is not None

    def run(program: str, packages: str) -> str:
        key = hashlib.sha256(packages.encode()).hexdigest()[:16]
        folder = cache.mkdir(f"clients-{key}")
        python = folder / "environment" / "bin" / "python"
        if not python.exists():
            uv = str(Path(sys.executable).with_name("uv"))
            at = str(python.parent.parent)
            subprocess.run([uv, "venv", "-q", "--python", "3.11", at], check=True)
            install = [uv, "pip", "install", "-q", "-p", str(python), *packages.split()]
            subprocess.run(install, check=True)
        path = Path(__file__).with_name(program)
        done = subprocess.run(
            [str(python), "-W", "error::UserWarning", str(path), *addresses],
            capture_output=True,
            text=True,
            timeout=500,  # the first time much is imported and compiled
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
