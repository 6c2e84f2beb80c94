"""Puts the application together: routes, errors, metrics and documentation around one service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app import metrics
from app.contract import Bundle, read_bundle
from app.fastpath import Endpoint
from app.http import BINARY, JSON
from app.metrics import Exposition, HttpMetrics, export_age, export_process
from app.openapi import Documentation
from app.page import DOCUMENTATION_FILES, documentation_file, documentation_page, read_page
from app.predictionlog import Operation, PredictionLog, WatchedProtocol, WatchedService
from app.protocol import Protocol
from app.service import Service
from app.settings import Settings, body_limit, read_settings
from app.transport import AccessLog, Budget, add_error_handlers, as_get, response

_PROTOCOL: list[str | Enum] = ["open inference protocol"]
_INFER = "/v2/models/{model_name}/infer"
_INFER_VERSION = "/v2/models/{model_name}/versions/{version}/infer"


@dataclass
class Lifecycle:
    """Whether the process is about to end; the server sets it and readiness reports it."""

    draining: bool = False


class Application(FastAPI):
    """FastAPI, with the operations that predict answered before the router is asked.

    Args:
        prefix: in front of paths, if a proxy passes it on.

    Attributes:
        fast_path: endpoints by path, for POST. Empty if there is middleware that must see every request: then
            the ordinary routes answer.
    """

    def __init__(self, prefix: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._prefix = prefix
        self.fast_path: dict[str, Endpoint] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        if method == "POST":
            endpoint = self.fast_path.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        elif method == "HEAD":
            scope, send = as_get(scope, send)
        if self._prefix and scope["type"] == "http":
            if scope["path"] == self._prefix and scope["method"] == "GET":
                # Relative addresses in the page need the slash at the end.
                await RedirectResponse(self._prefix.rpartition("/")[2] + "/")(scope, receive, send)
                return
            # Paths with the prefix and without it are routed alike.
            scope = {**scope, "root_path": self._prefix}
        await super().__call__(scope, receive, send)

    def add_middleware(self, *arguments: Any, **options: Any) -> None:
        """Add middleware; from then on the router answers everything, so that nothing gets past it."""
        self.fast_path = {}
        super().add_middleware(*arguments, **options)


class _ExactRoute(APIRoute):
    """A route for one spelling of its path, so that a proxy's rule about this path covers the route."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope.get("raw_path", b"").partition(b"?")[0] != self.path.encode():
            return Match.NONE, {}
        return super().matches(scope)


def create_app(settings: Settings | None = None, bundle: Bundle | None = None) -> Application:
    """The application for one bundle.

    Args:
        settings: from the environment if None.
        bundle: read from `settings.model_dir` if None.

    Returns:
        A FastAPI application; its `state` holds `service`, `prediction_log` (or None), `lifecycle`, `http`
        (metrics), `exposition`, `settings` and `budget` for the server.

    Raises:
        SettingsError, BundleError: it cannot start; the message says why in one line.
    """
    settings = settings or read_settings()
    registry = CollectorRegistry()
    operations = _operations(settings, bundle or read_bundle(settings.model_dir), registry)
    service, protocol, log = operations.service, operations.protocol, operations.log
    http = HttpMetrics(registry)
    exposition = Exposition(registry, (service.metrics, http, *([log] if log else [])))
    export_process(registry)
    export_age(registry, settings.model_created, settings.data_created)
    lifecycle = Lifecycle()
    largest = body_limit(settings, len(service.manifest.features))
    budget = Budget(settings.max_buffered_bytes, largest)
    documentation = Documentation(service)

    app = Application(
        title=f"Espalier: {service.manifest.name}",
        version=service.manifest.version,
        description=documentation.description,
        # FastAPI's page loads its script from elsewhere, and runs what a bundle's name contains.
        docs_url=None,
        redoc_url=None,
        prefix=settings.root_path,
        # The document says where it is by a relative address.
        root_path_in_servers=False,
        # A redirect would send a body on a second trip, to wherever the Host header says.
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.budget = budget
    app.state.service = service
    app.state.lifecycle = lifecycle
    app.state.prediction_log = log
    app.state.http = http
    app.state.exposition = exposition
    app.openapi = lambda: documentation.of(app)  # type: ignore[method-assign]
    fast_path = _add_predictions(app, operations, http, settings, budget)
    _add_protocol(app, protocol, lifecycle)
    _add_health(app, lifecycle)
    _add_about(app, service, exposition)
    add_error_handlers(app, service)
    http.instrument(app)
    if settings.access_log:
        app.add_middleware(AccessLog)
    # Last, because middleware closes it; the endpoints do the work of these two themselves.
    app.fast_path = {
        prefix + path: each for prefix in ("", settings.root_path) for path, each in fast_path.items()
    }
    return app


@dataclass(frozen=True)
class _Operations:
    """What answers, and what is done beside answering."""

    service: Service
    protocol: Protocol
    predict: Operation
    infer: Operation
    log: PredictionLog | None


def _operations(settings: Settings, bundle: Bundle, registry: CollectorRegistry) -> _Operations:
    options: dict[str, Any] = {
        "max_answer_bytes": settings.max_answer_bytes,
        "ignore_unknown": settings.unknown_fields == "ignore",
    }
    if not settings.prediction_log:
        service = Service(bundle, registry, **options)
        protocol = Protocol(service)
        return _Operations(service, protocol, service.predict, protocol.infer, None)
    watched = WatchedService(bundle, registry, **options)
    watched_protocol = WatchedProtocol(watched)
    log = PredictionLog(settings, bundle.manifest, registry)
    predict, infer = (log.logged(each, watched) for each in (watched.predict, watched_protocol.infer))
    return _Operations(watched, watched_protocol, predict, infer, log)


def _add_predictions(
    app: FastAPI, operations: _Operations, http: HttpMetrics, settings: Settings, budget: Budget
) -> dict[str, Endpoint]:
    """Add the ordinary routes, and return their short cuts."""
    service, protocol = operations.service, operations.protocol

    def endpoint(handler: str, answer: Any, **options: Any) -> Endpoint:
        return Endpoint(
            answer,
            http.route(handler, "POST"),
            service.refuse,
            body_limit(settings, len(service.manifest.features)),
            budget,
            access_log=settings.access_log,
            **options,
        )

    predictions = endpoint("/predict", operations.predict)
    inference = endpoint(_INFER, operations.infer, media_types=(BINARY.encode(),))
    inference_of_version = endpoint(_INFER_VERSION, operations.infer, media_types=(BINARY.encode(),))

    @app.post("/predict", tags=["predict"], summary="Classify one row or many")
    async def predict(request: Request) -> Response:
        return response(await predictions.respond(dict(request.headers.raw), request.receive))

    @app.post(_INFER, tags=_PROTOCOL, summary="Classify rows given as tensors")
    @app.post(_INFER_VERSION, tags=_PROTOCOL, summary="Classify rows given as tensors")
    async def infer(request: Request, model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        return response(await inference.respond(dict(request.headers.raw), request.receive))

    served = f"/v2/models/{service.manifest.name}"
    return {
        "/predict": predictions,
        f"{served}/infer": inference,
        f"{served}/versions/{service.manifest.version}/infer": inference_of_version,
    }


def _add_protocol(app: FastAPI, protocol: Protocol, lifecycle: Lifecycle) -> None:
    @app.get("/v2", tags=_PROTOCOL, summary="Server metadata")
    async def server() -> Response:
        return _json(protocol.server())

    @app.get("/v2/health/live", tags=_PROTOCOL, summary="Whether the process answers")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", tags=_PROTOCOL, summary="Whether requests should be sent here")
    async def ready() -> Response:
        return _json({"ready": not lifecycle.draining}, 503 if lifecycle.draining else 200)

    @app.get("/v2/models/{model_name}", tags=_PROTOCOL, summary="Model metadata")
    @app.get("/v2/models/{model_name}/versions/{version}", tags=_PROTOCOL, summary="Model metadata")
    async def model(model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        return _json(protocol.model())

    @app.get("/v2/models/{model_name}/ready", tags=_PROTOCOL, summary="Whether the model is ready")
    @app.get(
        "/v2/models/{model_name}/versions/{version}/ready",
        tags=_PROTOCOL,
        summary="Whether the model is ready",
    )
    async def model_ready(model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        answer = {"name": model_name, "ready": not lifecycle.draining}
        return _json(answer, 503 if lifecycle.draining else 200)


def _add_health(app: FastAPI, lifecycle: Lifecycle) -> None:
    @app.get("/health/live", tags=["health"], summary="Whether the process answers")
    async def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready", tags=["health"], summary="Whether requests should be sent here")
    async def ready() -> Response:
        if lifecycle.draining:
            return _json({"status": "draining"}, 503)
        return _json({"status": "ready"})


def _add_about(app: FastAPI, service: Service, exposition: Exposition) -> None:
    page, page_headers = read_page()
    card = service.manifest.model_dump_json().encode()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=page_headers)

    documentation, documentation_headers = documentation_page(app.title)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(documentation, media_type="text/html; charset=utf-8", headers=documentation_headers)

    @app.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str) -> Response:
        if name not in DOCUMENTATION_FILES:
            raise HTTPException(404)
        return FileResponse(documentation_file(name), headers={"X-Content-Type-Options": "nosniff"})

    @app.get("/model", tags=["model"], summary="The model's card")
    async def model() -> Response:
        return Response(card, media_type=JSON)

    async def prometheus() -> Response:
        return Response(exposition.render(), media_type=metrics.CONTENT_TYPE)

    app.router.add_api_route(
        "/metrics",
        prometheus,
        methods=["GET"],
        tags=["model"],
        summary="Metrics for Prometheus",
        route_class_override=_ExactRoute,
    )


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=JSON)
