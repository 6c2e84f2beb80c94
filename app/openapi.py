"""The OpenAPI document, made from the bundle's schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypedDict

from app.contract import Manifest
from app.featurestore import MAX_KEY_LENGTH, FeatureStore
from app.protocol import Parameters, infer_request
from app.schema import object_of
from app.service import Service
from app.settings import KeyType

_REF = "#/components/schemas/{model}"
_MODEL = "/v2/models/{model_name}"
_READINESS = (("200", "Ready"), ("503", "Draining"))
_ERRORS = {
    404: "No such model or version",
    408: "The body did not arrive in time",
    413: "The body is too large, or has too many rows",
    415: "The content type or encoding is not supported",
    422: "The input is wrong; each fault is named",
    503: "The service holds too much for other requests, or its feature store does not answer; `Retry-After` says when "
    "to try again",
}


class ErrorDetail(TypedDict):
    field: Annotated[str, Field(description="Where the fault is, such as `instances.3.sepal_length`.")]
    reason: str


class Error(TypedDict):
    """Any error."""

    error: Annotated[str, Field(description="One line for a person.")]
    code: Annotated[str, Field(description="For programs.")]
    details: list[ErrorDetail]


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


_ModelReference = object_of("ModelReference", {"name": str, "version": str})
_ServerMetadata = object_of("ServerMetadata", {"name": str, "version": str, "extensions": list[str]})
_Live = object_of("Live", {"live": bool})
_Ready = object_of("Ready", {"ready": bool})
_ModelReady = object_of("ModelReady", {"name": str, "ready": bool})
_Status = object_of("Status", {"status": Literal["live", "ready", "draining"]})


def description(service: Service) -> str:
    manifest = service.manifest
    return (
        f"Predicts {service.answers.description()} from {len(manifest.features)} features with "
        f"{manifest.algorithm}, version {manifest.version}."
    )


def document(app: FastAPI, service: Service, features: FeatureStore | None = None) -> dict[str, Any]:
    """FastAPI's document, completed: the routes read raw bytes, so FastAPI does not know their types."""
    made = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        # Relative to the document's own address, whatever prefix a proxy adds.
        servers=[{"url": "."}],
    )
    components = _Components()
    paths = made["paths"]
    _describe_predict(paths["/predict"]["post"], service, components, features)
    _describe_answers(paths, infer_request(service.tensors), components)
    served = {"model_name": service.manifest.name, "version": service.manifest.version}
    error = _json(components.add(Error))
    for path, operations in paths.items():
        for method, operation in operations.items():
            # FastAPI documents its own 422, which these routes never send.
            operation["responses"].pop("422", None)
            expected = [404] if "{model_name}" in path else []
            expected += [408, 413, 415, 422, 503] if method == "post" else []
            for status in expected:
                operation["responses"][str(status)] = {"description": _ERRORS[status], "content": error}
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = {"type": "string", "enum": [served[parameter["name"]]]}
    made["components"] = {"schemas": components.schemas}
    return made


def _describe_predict(
    operation: dict[str, Any], service: Service, components: _Components, features: FeatureStore | None
) -> None:
    explained = service.explanations is not None
    entity = None if features is None else _entity(features)
    shapes = [components.add(each) for each in service.schema.shapes(explained=explained, entity=entity)]
    answers = [components.add(each) for each in _answers(service)]
    content = _json({"anyOf": shapes})
    examples = _examples(service.manifest)
    if examples:
        content["application/json"]["examples"] = examples
    operation["description"] = (
        "Takes one instance as an object, several as `instances`, or big batches as `columns` with one "
        "array per feature. The answer has the shape of the question."
    )
    if explained:
        operation["description"] += (
            " With `explain`, it says what each feature contributes. If a feature of an instance has this name, ask "
            "with `instances`."
        )
    if features is not None:
        operation["description"] += (
            " An instance may name an `entity` instead of features: those that it leaves out are looked up in the feature store."
        )
    operation["requestBody"] = {"required": True, "content": content}
    operation["responses"]["200"] = {"description": "The prediction", "content": _json({"anyOf": answers})}


def _describe_answers(paths: dict[str, Any], infer: Any, components: _Components) -> None:
    """The answers of all other routes, and the body of `infer`."""

    def answer(path: str, status: str, about: str, kind: Any, **more: Any) -> None:
        (operation,) = paths[path].values()
        operation["responses"][status] = {
            "description": about,
            "content": {**_json(components.add(kind)), **more},
        }

    for model in (_MODEL, f"{_MODEL}/versions/{{version}}"):
        operation = paths[f"{model}/infer"]["post"]
        operation["requestBody"] = {"required": True, "content": _json(components.add(infer))}
        answer(f"{model}/infer", "200", "The outputs", InferResponse, **{"application/octet-stream": {}})
        answer(model, "200", "Successful", ModelMetadata)
        for status, about in _READINESS:
            answer(f"{model}/ready", status, about, _ModelReady)
    for status, about in _READINESS:
        answer("/v2/health/ready", status, about, _Ready)
        answer("/health/ready", status, about, _Status)
    answer("/v2", "200", "Successful", _ServerMetadata)
    answer("/v2/health/live", "200", "Successful", _Live)
    answer("/health/live", "200", "Successful", _Status)
    answer("/model", "200", "Successful", Manifest)
    paths["/metrics"]["get"]["responses"]["200"] = {
        "description": "Prometheus text format",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }


def _entity(features: FeatureStore) -> Any:
    """The type of an entity."""
    types: dict[KeyType, Any] = {
        "int": Annotated[int, Field(ge=-(2**63), lt=2**63)],
        "string": Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)],
    }
    closed = ConfigDict(extra="forbid", strict=True)
    return object_of("Entity", {name: types[kind] for name, kind in features.keys.items()}, closed)


class _Components:
    """Schemas by name, so that the document contains each once."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def add(self, described: Any) -> dict[str, Any]:
        """Add a type or an adapter with its references, and return a reference to it."""
        adapter = described if isinstance(described, TypeAdapter) else TypeAdapter(described)
        # Answers contain the fields that have defaults.
        mode: JsonSchemaMode = "serialization" if described is Manifest else "validation"
        schema = adapter.json_schema(mode=mode, ref_template=_REF)
        self.schemas.update(schema.pop("$defs", {}))
        if "$ref" in schema:
            return schema
        self.schemas[schema["title"]] = schema
        return {"$ref": _REF.format(model=schema["title"])}


def _answers(service: Service) -> tuple[Any, Any, Any]:
    """The types of the three answers to `/predict`."""
    one, columns, model = (
        service.answers.object_fields(),
        service.answers.column_fields(),
        {"model": _ModelReference},
    )
    if service.explanations is not None:
        one["explanation"] = NotRequired[service.explanations.object_field()]
        columns["explanation"] = NotRequired[service.explanations.column_field()]
    row: Any = object_of("Row", one)
    return (
        object_of("Prediction", one | model),
        object_of("Predictions", {"predictions": list[row]} | model),
        object_of("PredictionColumns", columns | model),
    )


def _examples(manifest: Manifest) -> dict[str, Any]:
    """Valid requests in each shape, from rows of the test split."""
    rows = [example.values for example in manifest.examples]
    if not rows:
        return {}
    columns = {feature.name: [row.get(feature.name) for row in rows] for feature in manifest.features}
    return {
        "instance": {"summary": f"One row: {manifest.examples[0].label}", "value": rows[0]},
        "instances": {"summary": "Several rows", "value": {"instances": rows}},
        "columns": {"summary": "Columns", "value": {"columns": columns}},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
