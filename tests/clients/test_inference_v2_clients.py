"""Other projects' clients of the Open Inference Protocol, against a gateway on real ports."""

from __future__ import annotations

from tests.clients.conftest import Run


def test_tritonclient(run: Run) -> None:
    """Triton's client with its binary defaults, by HTTP and gRPC: every type, names, errors."""
    assert "all good" in run("triton_program.py", "tritonclient[http,grpc]==2.73.0")


def test_kserve(run: Run) -> None:
    """KServe's client, by REST with and without binary data, and by gRPC."""
    assert "all good" in run("kserve_program.py", "kserve==0.21.0")


def test_pydantic_open_inference(run: Run) -> None:
    """A client that checks the metadata against its own models before it asks."""
    assert "all good" in run("pydantic_program.py", "pydantic-open-inference==1.3.2")


def test_open_inference_openapi(run: Run) -> None:
    """The client that is generated from the specification."""
    assert "all good" in run(
        "openapi_program.py", "open-inference-openapi==2.0.0.1 typing-extensions"
    )
