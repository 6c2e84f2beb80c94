"""Builds the application: routes, errors, metrics and documentation around one service."""

from __future__ import annotations

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
from app.featurestore import FeatureStore
from app.http import BINARY, JSON
from app.metrics import Exposition, HttpMetrics, ModelMetrics, export_age, export_process
from app.offload import Offload
from app.openapi import description, document
from app.page import DOCUMENTATION_FILES, documentation_file, documentation_page, read_page
from app.predictionlog import Operation, PredictionLog
from app.protocol import Protocol
from app.service import RecordedOperation, Service
from app.settings import Settings, body_limit, read_settings
from app.transport import Budget, add_error_handlers, log_observed, response

_PROTOCOL: list[str | Enum] = ["open inference protocol"]
_INFER = "/v2/models/{model_name}/infer"
_INFER_VERSION = "/v2/models/{model_name}/versions/{version}/infer"


class Application(FastAPI):
    """FastAPI, but predictions bypass the router.

    Attributes:
        fast_path: endpoints by path, for POST. Empty if there is middleware that must see every request; the ordinary
            routes then answer.
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
            # FastAPI's routes do not accept HEAD. uvicorn leaves out the body.
            scope = {**scope, "method": "GET"}
        if self._prefix and scope["type"] == "http":
            if scope["path"] == self._prefix and scope["method"] == "GET":
                # Relative addresses in the page need the slash at the end.
                await RedirectResponse(self._prefix.rpartition("/")[2] + "/")(scope, receive, send)
                return
            # Paths with the prefix and without it have the same routes.
            scope = {**scope, "root_path": self._prefix}
        await super().__call__(scope, receive, send)

    def add_middleware(self, *arguments: Any, **options: Any) -> None:
        """Add middleware, and let the router answer everything, so that no request bypasses it."""
        self.fast_path = {}
        super().add_middleware(*arguments, **options)

    def openapi(self) -> dict[str, Any]:
        """The API's description; made on first use, to keep the start fast."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self, self.state.service, self.state.feature_store)
        return self.openapi_schema


class _ExactRoute(APIRoute):
    """A route for one spelling of its path, so that a proxy's rule about this path covers the route."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope.get("raw_path", b"").partition(b"?")[0] != self.path.encode():
            return Match.NONE, {}
        return super().matches(scope)


def create_app(
    settings: Settings | None = None, bundle: Bundle | None = None, offload: Offload | None = None
) -> Application:
    """The application for one bundle.

    Args:
        settings: read from the environment by default.
        bundle: read from `settings.model_dir` by default.
        offload: the process for large requests; without it a thread answers them.

    Returns:
        A FastAPI application. Its `state` has what the server needs.

    Raises:
        SettingsError, BundleError: it cannot start; the message says why in one line.
    """
    settings = settings or read_settings()
    bundle = bundle or read_bundle(settings.model_dir)
    registry = CollectorRegistry()
    model_metrics = ModelMetrics(bundle.manifest, registry)
    service = Service(
        bundle, model_metrics, settings.max_answer_bytes, ignore_unknown=settings.unknown_fields == "ignore"
    )
    protocol = Protocol(service)
    app = Application(
        title=f"Espalier: {service.manifest.name}",
        version=service.manifest.version,
        description=description(service),
        # FastAPI's page loads its script from another host, and does not escape the bundle's name.
        docs_url=None,
        redoc_url=None,
        prefix=settings.root_path,
        # The document gives its own address, which is relative.
        root_path_in_servers=False,
        # A redirect would send a body twice, to whatever the Host header names.
        redirect_slashes=False,
    )
    state = app.state
    state.settings = settings
    state.service = service
    state.model_metrics = model_metrics
    state.offload = offload
    state.prediction_log = (
        PredictionLog(settings, bundle.manifest, registry) if settings.prediction_log else None
    )
    state.feature_store = (
        FeatureStore(settings, bundle.manifest, registry) if settings.feature_store else None
    )
    state.http = HttpMetrics(registry)
    state.budget = Budget(settings.max_buffered_bytes, body_limit(settings, len(service.manifest.features)))
    state.draining = False
    sources = [each for each in (model_metrics, state.http, state.prediction_log) if each is not None]
    state.exposition = Exposition(registry, sources)
    if offload is not None:
        export_process(registry, offload.pid)
    export_age(registry, settings.model_created, settings.data_created)
    fast_path = _add_predictions(app, protocol)
    _add_protocol(app, protocol)
    _add_health(app)
    _add_about(app)
    add_error_handlers(app, service)
    state.http.instrument(app, *([log_observed] if settings.access_log else []))
    # Last, because middleware clears it; the endpoints count and log by themselves.
    app.fast_path = {
        prefix + path: each for prefix in ("", settings.root_path) for path, each in fast_path.items()
    }
    return app


def _add_predictions(app: Application, protocol: Protocol) -> dict[str, Endpoint]:
    """Add the ordinary routes, and return their fast path."""
    service: Service = app.state.service
    settings: Settings = app.state.settings
    log: PredictionLog | None = app.state.prediction_log
    offload: Offload | None = app.state.offload

    def logged(operation: RecordedOperation) -> Operation:
        return log.logged(operation) if log else operation

    def endpoint(handler: str, name: str, answer: RecordedOperation, **options: Any) -> Endpoint:
        return Endpoint(
            logged(answer),
            app.state.http.route(handler, "POST"),
            service.refuse,
            body_limit(settings, len(service.manifest.features)),
            app.state.budget,
            offload=offload,
            answer_elsewhere=(
                logged(offload.operation(name, app.state.model_metrics)) if offload is not None else None
            ),
            takes_long=service.explanations.are_asked_for if service.explanations else None,
            access_log=settings.access_log,
            **options,
        )

    predictions = endpoint("/predict", "predict", service.predict, features=app.state.feature_store)
    inference = endpoint(_INFER, "infer", protocol.infer, media_types=(BINARY.encode(),))
    inference_of_version = endpoint(_INFER_VERSION, "infer", protocol.infer, media_types=(BINARY.encode(),))

    @app.post("/predict", tags=["predict"], summary="Predict one row or many")
    async def predict(request: Request) -> Response:
        return response(await predictions.respond(dict(request.headers.raw), request.receive))

    @app.post(_INFER, tags=_PROTOCOL, summary="Predict rows given as tensors")
    @app.post(_INFER_VERSION, tags=_PROTOCOL, summary="Predict rows given as tensors")
    async def infer(request: Request, model_name: str, version: str | None = None) -> Response:
        protocol.check(model_name, version)
        return response(await inference.respond(dict(request.headers.raw), request.receive))

    served = f"/v2/models/{service.manifest.name}"
    return {
        "/predict": predictions,
        f"{served}/infer": inference,
        f"{served}/versions/{service.manifest.version}/infer": inference_of_version,
    }


def _add_protocol(app: Application, protocol: Protocol) -> None:
    @app.get("/v2", tags=_PROTOCOL, summary="Server metadata")
    async def server() -> Response:
        return _json(protocol.server())

    @app.get("/v2/health/live", tags=_PROTOCOL, summary="Whether the process answers")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", tags=_PROTOCOL, summary="Whether requests should be sent here")
    async def ready() -> Response:
        return _json({"ready": not app.state.draining}, 503 if app.state.draining else 200)

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
        answer = {"name": model_name, "ready": not app.state.draining}
        return _json(answer, 503 if app.state.draining else 200)


def _add_health(app: Application) -> None:
    @app.get("/health/live", tags=["health"], summary="Whether the process answers")
    async def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready", tags=["health"], summary="Whether requests should be sent here")
    async def ready() -> Response:
        if app.state.draining:
            return _json({"status": "draining"}, 503)
        return _json({"status": "ready"})


def _add_about(app: Application) -> None:
    exposition: Exposition = app.state.exposition
    page, page_headers = read_page()
    card = app.state.service.manifest.model_dump_json().encode()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, headers=page_headers)

    documentation, documentation_headers = documentation_page(app.title)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(documentation, headers=documentation_headers)

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
