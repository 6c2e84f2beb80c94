"""The documentation at `/docs` and `/openapi.json`, made from the bundle's schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import Field, TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypedDict

from app.contract import Manifest
from app.protocol import InferRequest, Parameters
from app.schema import object_of
from app.service import Service

_REF = "#/components/schemas/{model}"
_INFER = ("/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{version}/infer")
_ERRORS = {
    404: "No such model or version",
    408: "The body did not arrive in time",
    413: "The body is too large, or has too many rows",
    415: "The content type or encoding is not supported",
    422: "The input is wrong; each fault is named",
    503: "The service holds too much for other requests; `Retry-After` says when to try again",
}


class ErrorDetail(TypedDict):
    field: Annotated[str, Field(description="Where the fault is, such as `instances.3.sepal_length`.")]
    reason: str


class Error(TypedDict):
    """Any error."""

    error: Annotated[str, Field(description="One line for a person.")]
    code: Annotated[str, Field(description="For programs.")]
    details: list[ErrorDetail]


class ModelReference(TypedDict):
    name: str
    version: str


class Output(TypedDict):
    name: str
    datatype: Literal["BYTES", "FP64"]
    shape: list[int]
    parameters: NotRequired[Parameters]
    data: NotRequired[list[Any]]


class InferResponse(TypedDict):
    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[Output]


class TensorMetadata(TypedDict):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(TypedDict):
    name: str
    version: str
    extensions: list[str]


class Live(TypedDict):
    live: bool


class Ready(TypedDict):
    ready: bool


class ModelReady(TypedDict):
    name: str
    ready: bool


class Status(TypedDict):
    status: Literal["live", "ready", "draining"]


class Documentation:
    """Completes FastAPI's document: the routes read raw bytes, so what they take is described here."""

    def __init__(self, service: Service) -> None:
        self._service = service
        manifest = service.manifest
        self.description = (
            f"Predicts **{manifest.target}** ({', '.join(manifest.classes)}) from "
            f"{len(manifest.features)} features with {manifest.algorithm}, version {manifest.version}."
        )

    def of(self, app: FastAPI) -> dict[str, Any]:
        """The document; made on first use, because start-up should not pay for it."""
        if app.openapi_schema is None:
            app.openapi_schema = self._build(app)
        return app.openapi_schema

    def _build(self, app: FastAPI) -> dict[str, Any]:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=self.description,
            routes=app.routes,
            # From where the document itself is, whatever prefix a proxy puts in front.
            servers=[{"url": "."}],
        )
        components = _Components()
        paths = document["paths"]
        self._describe_predict(paths["/predict"]["post"], components)
        self._describe_protocol(paths, components)
        _describe_about(paths, components)
        error = _json(components.add(Error))
        for path, operations in paths.items():
            for method, operation in operations.items():
                expected = [404] if "{model_name}" in path else []
                expected += [408, 413, 415, 422, 503] if method == "post" else []
                # FastAPI documents its own 422, which these routes never send.
                operation["responses"].pop("422", None)
                for status in expected:
                    operation["responses"][str(status)] = {"description": _ERRORS[status], "content": error}
        document["components"] = {"schemas": components.schemas}
        return document

    def _describe_predict(self, operation: dict[str, Any], components: _Components) -> None:
        schema = self._service.schema
        shapes = [components.add(adapter) for adapter in (schema.instance, schema.instances, schema.columns)]
        answers = [components.add(each) for each in _answers(self._service.manifest)]
        content = _json({"anyOf": shapes})
        examples = _examples(self._service.manifest)
        if examples:
            content["application/json"]["examples"] = examples
        operation["description"] = (
            "Takes one instance as an object, several as `instances`, or big batches as `columns` with one "
            "array per feature. The answer has the shape of the question."
        )
        operation["requestBody"] = {"required": True, "content": content}
        operation["responses"]["200"] = {
            "description": "The prediction",
            "content": _json({"anyOf": answers}),
        }

    def _describe_protocol(self, paths: dict[str, Any], components: _Components) -> None:
        not_ready = {"description": "Draining"}
        for path in _INFER:
            operation = paths[path]["post"]
            operation["requestBody"] = {"required": True, "content": _json(components.add(InferRequest))}
            answer = {**_json(components.add(InferResponse)), "application/octet-stream": {}}
            operation["responses"]["200"] = {"description": "The outputs", "content": answer}
        for path, operations in paths.items():
            if path.endswith("/ready") and path.startswith("/v2/"):
                kind = ModelReady if "models" in path else Ready
                content = _json(components.add(kind))
                operations["get"]["responses"]["200"] = {"description": "Ready", "content": content}
                operations["get"]["responses"]["503"] = {**not_ready, "content": content}
            elif path.endswith(("{model_name}", "{version}")):
                _answers_with(operations["get"], components.add(ModelMetadata))
        _answers_with(paths["/v2"]["get"], components.add(ServerMetadata))
        _answers_with(paths["/v2/health/live"]["get"], components.add(Live))
        served = {"model_name": self._service.manifest.name, "version": self._service.manifest.version}
        for operations in paths.values():
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = {"type": "string", "enum": [served[parameter["name"]]]}


class _Components:
    """Schemas by name, so that the document says each thing once."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def add(self, described: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        """Add a type or an adapter and what it needs, and return a reference to it."""
        adapter = described if isinstance(described, TypeAdapter) else TypeAdapter(described)
        schema = adapter.json_schema(mode=mode, ref_template=_REF)
        self.schemas.update(schema.pop("$defs", {}))
        if "$ref" in schema:
            return schema
        self.schemas[schema["title"]] = schema
        return {"$ref": _REF.format(model=schema["title"])}


def _describe_about(paths: dict[str, Any], components: _Components) -> None:
    status = _json(components.add(Status))
    _answers_with(paths["/health/live"]["get"], components.add(Status))
    paths["/health/ready"]["get"]["responses"] = {
        "200": {"description": "Ready", "content": status},
        "503": {"description": "Draining", "content": status},
    }
    _answers_with(paths["/model"]["get"], components.add(Manifest, mode="serialization"))
    paths["/metrics"]["get"]["responses"]["200"] = {
        "description": "Prometheus text format",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }


def _answers(manifest: Manifest) -> tuple[Any, Any, Any]:
    """Types of the three answers to `/predict`."""
    classes = manifest.classes
    label: Any = Annotated[Literal[classes], Field(description="The most likely class.")]
    one = {"label": label, "probabilities": object_of("Probabilities", dict.fromkeys(classes, float))}
    lists = object_of("ProbabilitiesByClass", dict.fromkeys(classes, list[float]))
    row: Any = object_of("Row", one)
    return (
        object_of("Prediction", {**one, "model": ModelReference}),
        object_of("Predictions", {"predictions": list[row], "model": ModelReference}),
        object_of(
            "PredictionColumns", {"labels": list[label], "probabilities": lists, "model": ModelReference}
        ),
    )


def _examples(manifest: Manifest) -> dict[str, Any]:
    """Working requests in each shape, made of rows of the test split."""
    rows = [example.values for example in manifest.examples]
    if not rows:
        return {}
    columns = {feature.name: [row.get(feature.name) for row in rows] for feature in manifest.features}
    return {
        "instance": {"summary": f"One row: {manifest.examples[0].label}", "value": rows[0]},
        "instances": {"summary": "Several rows", "value": {"instances": rows}},
        "columns": {"summary": "Columns", "value": {"columns": columns}},
    }


def _answers_with(operation: dict[str, Any], schema: dict[str, Any]) -> None:
    operation["responses"]["200"] = {"description": "Successful", "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
