"""Puts the application together: routes, errors, metrics and documentation around one service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry

from app import metrics
from app.contract import Bundle, read_bundle
from app.openapi import Documentation
from app.page import read_page
from app.protocol import Protocol
from app.service import Service
from app.settings import Settings, read_settings
from app.transport import BINARY, JSON, AccessLog, add_error_handlers, check_media_type, read_body

INLINE_BYTES = 8 * 1024
"""Bodies up to this size are answered on the event loop. They hold at most about 400 rows, measured at 0.3 ms
for a linear model and 2 ms for a forest of 100 trees. Larger ones go to a thread, so that single rows are not
kept waiting; its hand-over of about 0.1 ms does not matter to them."""

T = TypeVar("T")


@dataclass
class Lifecycle:
    """Whether the process is on its way out; the server sets it and readiness tells it."""

    draining: bool = False


def create_app(settings: Settings | None = None, bundle: Bundle | None = None) -> FastAPI:
    """The application for one bundle.

    Args:
        settings: from the environment if None.
        bundle: read from `settings.model_dir` if None.

    Returns:
        A FastAPI application; `app.state.service` and `app.state.lifecycle` are there for the server.

    Raises:
        SettingsError, BundleError: it cannot start; the message says why in one line.
    """
    settings = settings or read_settings()
    registry = CollectorRegistry()
    service = Service(bundle or read_bundle(settings.model_dir), registry)
    lifecycle = Lifecycle()
    documentation = Documentation(service)

    app = FastAPI(
        title=f"Espalier: {service.manifest.name}",
        version=service.manifest.version,
        description=documentation.description,
        redoc_url=None,
        # A redirect would send a body on a second trip, to wherever the Host header says.
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.lifecycle = lifecycle
    app.openapi = lambda: documentation.of(app)  # type: ignore[method-assign]
    _add_predict(app, service, settings)
    _add_protocol(app, service, settings, lifecycle)
    _add_health(app, lifecycle)
    _add_about(app, service)
    add_error_handlers(app, service)
    metrics.instrument(app, registry)
    if settings.access_log:
        app.add_middleware(AccessLog)
    return app


def _add_predict(app: FastAPI, service: Service, settings: Settings) -> None:
    heavy = _Heavy()

    @app.post("/predict", tags=["predict"], summary="Classify one row or many")
    async def predict(request: Request) -> Response:
        check_media_type(request)
        body = await read_body(request, settings.max_body_bytes)
        return Response(await heavy.run(service.predict, body), media_type=JSON)


def _add_protocol(app: FastAPI, service: Service, settings: Settings, lifecycle: Lifecycle) -> None:
    protocol = Protocol(service)
    heavy = _Heavy()
    tags: list[str | Enum] = ["open inference protocol"]

    @app.get("/v2", tags=tags, summary="Server metadata")
    async def server() -> Response:
        return _json(protocol.server())

    @app.get("/v2/health/live", tags=tags, summary="Whether the process answers")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", tags=tags, summary="Whether requests should be sent here")
    async def ready() -> Response:
        return _json({"ready": not lifecycle.draining}, 503 if lifecycle.draining else 200)

    @app.get("/v2/models/{model_name}", tags=tags, summary="Model metadata")
    @app.get("/v2/models/{model_name}/versions/{version}", tags=tags, summary="Model metadata")
    async def model(model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        return _json(protocol.model())

    @app.get("/v2/models/{model_name}/ready", tags=tags, summary="Whether the model is ready")
    @app.get(
        "/v2/models/{model_name}/versions/{version}/ready", tags=tags, summary="Whether the model is ready"
    )
    async def model_ready(model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        answer = {"name": model_name, "ready": not lifecycle.draining}
        return _json(answer, 503 if lifecycle.draining else 200)

    @app.post("/v2/models/{model_name}/infer", tags=tags, summary="Classify rows given as tensors")
    @app.post(
        "/v2/models/{model_name}/versions/{version}/infer",
        tags=tags,
        summary="Classify rows given as tensors",
    )
    async def infer(request: Request, model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        check_media_type(request, extra=(BINARY,))
        body = await read_body(request, settings.max_body_bytes)
        header_length = request.headers.get("inference-header-content-length")
        answer = await heavy.run(lambda content: protocol.infer(content, header_length), body)
        return Response(answer.body, headers=answer.headers)


def _add_health(app: FastAPI, lifecycle: Lifecycle) -> None:
    @app.get("/health/live", tags=["health"], summary="Whether the process answers")
    async def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready", tags=["health"], summary="Whether requests should be sent here")
    async def ready() -> Response:
        if lifecycle.draining:
            return _json({"status": "draining"}, 503)
        return _json({"status": "ready"})


def _add_about(app: FastAPI, service: Service) -> None:
    page, page_headers = read_page()
    card = service.manifest.model_dump_json().encode()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=page_headers)

    @app.get("/model", tags=["model"], summary="The model's card")
    async def model() -> Response:
        return Response(card, media_type=JSON)

    @app.get("/metrics", tags=["model"], summary="Metrics for Prometheus")
    async def prometheus() -> Response:
        return Response(service.metrics.render(), media_type=metrics.CONTENT_TYPE)


class _Heavy:
    """Answers small bodies at once and large ones in a thread.

    One thread: a batch is bound by the processor, and more of them would only take turns with the event
    loop.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")

    async def run(self, answer: Callable[[bytes], T], body: bytes) -> T:
        if len(body) <= INLINE_BYTES:
            return answer(body)
        return await asyncio.get_running_loop().run_in_executor(self._thread, answer, body)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=JSON)
