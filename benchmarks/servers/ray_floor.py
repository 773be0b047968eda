"""An empty Ray Serve ingress behind HAProxy: `ray_floor.py PORT ANSWER_BYTES [OPTION …]`.

Everything that doesn't predict is as `modelmux up` has it (`deployments.cluster.launch`), but what
modelmux puts before Ray's own machinery (`deployments.ingress.serve_middleware`) is there only with
`--as-modelmux`. With `--fastapi` the handler is one of FastAPI's."""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from deployments.cluster.ray_environment import fast_path, has_haproxy

_FRONT = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
_OBJECT_STORE_BYTES = 512 * 1024 * 1024


def empty_app(answer: bytes) -> Any:
    """An ASGI application that reads the body and answers the same whatever is asked."""
    length = str(len(answer)).encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body", False):
            pass
        # Made anew each time: what Ray puts around the application adds to the list.
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def empty_fastapi_app(answer: bytes) -> Any:
    """The same by FastAPI."""
    app = FastAPI()

    @app.get("/")
    @app.post("/predict")
    async def predict(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    return app


def serve_until_stopped(port: int, answer: bytes) -> None:
    """Until SIGTERM or SIGINT. Ray reads its environment when it is imported, so not before."""
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    make = empty_fastapi_app if "--fastapi" in sys.argv else empty_app

    @serve.ingress(lambda: make(answer))  # a function is taken for a maker of applications
    class Floor:
        """Nothing but its ingress."""

    floor = serve.deployment(
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=1,
        graceful_shutdown_wait_loop_s=0.1,
    )(Floor)

    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES)
    stop = threading.Event()
    try:
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=quiet)
        serve.run(floor.bind(), route_prefix="/", logging_config=quiet)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        serve.shutdown()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def main() -> None:
    """Within the fast path; without HAProxy there is no such floor."""
    assert has_haproxy(), "no HAProxy here"
    port, answer = int(sys.argv[1]), b"0" * int(sys.argv[2])
    with (
        tempfile.TemporaryDirectory(prefix="floor-") as folder,
        fast_path(Path(folder), host="127.0.0.1", port=port, proxied=True),
    ):
        if "--as-modelmux" not in sys.argv:
            os.environ.pop(_FRONT, None)
        serve_until_stopped(port, answer)


if __name__ == "__main__":
    main()
