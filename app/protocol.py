"""The Open Inference Protocol (v2): tensors in, tensors out, as JSON or binary.

Each feature is an input tensor of shape [rows] or [rows, 1]: FP64, or another numeric type, for a number; BYTES for a
category, or for a datetime in ISO 8601. JSON values must fit the tensor's type. NaN, null and an empty string mean a missing value. The outputs of a
classification are `label` (BYTES, [rows]) and `probabilities` (FP64, [rows, classes], in the order of the classes in
`/model`); those of a regression are `value` (FP64, [rows]) and `interval` (FP64, [rows, 2], low and high). With the
parameter `explain`, or if they are requested by name, `contributions` (FP64, [rows, features], in the order of the features
in `/model`) and `base` (FP64, [rows]) explain the predictions.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError, WithJsonSchema
from typing_extensions import TypeAliasType, TypedDict, get_type_hints

from app import __version__
from app.answers import OutputTensor
from app.errors import Detail, Reason, RequestError, invalid
from app.http import BINARY, Answer, RequestHeaders, json_answer
from app.limits import Output
from app.schema import EXPLAIN, list_of, object_of, optional
from app.service import Prediction, Service

HEADER_LENGTH = "Inference-Header-Content-Length"
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_BINARY_TYPE = (b"content-type", BINARY.encode())

_NUMBERS = {
    "FP64": "<f8",
    "FP32": "<f4",
    "FP16": "<f2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "<i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "<u1",
}
"""Numeric data types and their layout in the binary extension."""


def _range(layout: str) -> tuple[float, float]:
    if layout[1] != "f":
        return float(np.iinfo(layout).min), float(np.iinfo(layout).max)
    # A decimal number up to half a step above the greatest value is rounded to it.
    greatest = float(np.finfo(layout).max) * (1 + float(np.finfo(layout).eps) / 4)
    return -greatest, greatest


_RANGES = {datatype: _range(layout) for datatype, layout in _NUMBERS.items() if datatype != "FP64"}
"""The bounds of JSON values, for types that do not hold every number."""

_STRICT = ConfigDict(strict=True)
Parameters = dict[str, Any]
"""Parameters of extensions. This service knows `binary_data_size`, `binary_data`, `binary_data_output` and `explain`. It
ignores others, as the protocol requires, except those that would change the answer."""


def _array(numbers: list[float]) -> list[float] | NDArray[np.float64]:
    # A few values are checked faster one by one.
    return np.frombuffer(struct.pack(f"={len(numbers)}d", *numbers)) if len(numbers) > 16 else numbers


# Finite numbers become an array when they are parsed; anything else stays a list, which the schema checks.
_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Numbers = TypeAliasType("_Numbers", Annotated[list[_Finite], FailFast(), AfterValidator(_array)])
_Values = Annotated[
    _Numbers | list[Any],
    Field(union_mode="left_to_right"),
    WithJsonSchema(
        {"type": "array", "items": {}, "description": "The values, unless they follow as binary."}
    ),
]


class Tensor(TypedDict):
    """An input: one feature's values."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    name: Annotated[str, Field(description="The feature's name.")]
    shape: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=2, description="[rows] or [rows, 1]."),
    ]
    datatype: Annotated[
        str, Field(description="FP64 or another number type, or BYTES for a category or a datetime.")
    ]
    parameters: NotRequired[Parameters]
    data: NotRequired[_Values]


class RequestedOutput(TypedDict):
    """An output that the client wants."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    name: str
    parameters: NotRequired[Parameters]


class InferRequest(TypedDict):
    """The JSON part of an inference request."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: NotRequired[str]
    parameters: NotRequired[Parameters]
    inputs: Annotated[list[Tensor], Field(min_length=1), FailFast()]
    outputs: NotRequired[Annotated[list[RequestedOutput], FailFast()]]


_TENSOR_FIELDS: dict[str, Any] = {
    name: hint
    for name, hint in get_type_hints(Tensor, include_extras=True).items()
    if name not in ("parameters", "data")
}
"""The fields that every tensor must have."""


class Protocol:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._manifest = service.manifest
        self._tensors_out = {each.name: each for each in service.tensors}
        self._usual = tuple(each.name for each in service.answers.tensors)
        # Without required fields in tensors: pydantic would copy a whole tensor into the error about each missing one.
        self._requests: TypeAdapter[InferRequest] = TypeAdapter(
            infer_request(service.tensors, optional(_TENSOR_FIELDS))
        )
        self._features = {each.name: each for each in self._manifest.features}
        self._encoded = {name: _encode(name) for name in self._manifest.classes}

    def server(self) -> dict[str, Any]:
        return {"name": "espalier", "version": __version__, "extensions": ["binary_tensor_data"]}

    def model(self) -> dict[str, Any]:
        inputs = [
            {"name": f.name, "datatype": "FP64" if f.type == "number" else "BYTES", "shape": [-1]}
            for f in self._manifest.features
        ]
        outputs = [
            {"name": each.name, "datatype": each.datatype, "shape": each.shape(-1)}
            for each in self._service.answers.tensors
        ]
        return {
            "name": self._manifest.name,
            "versions": [self._manifest.version],
            "platform": "onnxruntime_onnx",
            "inputs": inputs,
            "outputs": outputs,
        }

    def check(self, name: str, version: str | None) -> None:
        """Raise a 404 for names and versions that are not served."""
        served = self._manifest
        if name != served.name:
            raise RequestError(404, "not_found", f"model {name} is not here; {served.name} is")
        if version is not None and version != served.version:
            raise RequestError(404, "not_found", f"version {version} is not here; {served.version} is")

    def infer(self, body: bytes, headers: RequestHeaders, prediction: Prediction | None = None) -> Answer:
        """Answer an inference request.

        The body is JSON. If the header `Inference-Header-Content-Length` says where it ends, binary tensors follow.

        Raises:
            RequestError: 422 that names the tensor and the row; 413 for too many rows.
        """
        head, binary = _split(body, headers.get(_HEADER_LENGTH))
        request = self._read(head)
        outputs = self._outputs(request)
        tensors = self._tensors(request["inputs"], binary)
        service = self._service
        usual = tuple(each for each in outputs if each[0] in self._usual)
        explanations = service.explanations if len(usual) < len(outputs) else None
        rows = service.schema.from_tensors(tensors, service.limits.tensors(usual))
        if explanations is not None:
            explanations.limits.check(len(rows), explanations.limits.tensors(outputs))
        many = service.run(rows)
        explained = explanations.explain(rows, service.answers.labels(many)) if explanations else None
        if prediction is not None:
            prediction.id = request.get("id")
            prediction.record(rows, many)

        def values(name: str) -> NDArray[Any]:
            if explanations is None or explained is None or name in self._usual:
                return service.answers.tensor(name, many)
            return explanations.tensor(name, explained)

        return self._answer(request, outputs, len(rows), values)

    def _read(self, head: bytes) -> InferRequest:
        try:
            request = self._requests.validate_json(head)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            if faults[0]["type"] == "json_invalid":
                raise RequestError(422, "invalid_json", faults[0]["msg"], reason="invalid_json") from None
            raise invalid(
                [
                    Detail(".".join(map(str, each["loc"])), each["msg"].removeprefix("Input "), "wrong_shape")
                    for each in faults
                ]
            ) from None
        for index, tensor in enumerate(request["inputs"]):
            if not tensor.keys() >= _TENSOR_FIELDS.keys():
                missing = [name for name in _TENSOR_FIELDS if name not in tensor]
                raise invalid(
                    [Detail(f"inputs.{index}.{name}", "Field required", "wrong_shape") for name in missing]
                )
        return request

    def _outputs(self, request: InferRequest) -> tuple[Output, ...]:
        """The names of the outputs in order, and whether each is requested as binary."""
        binary = explain = False
        if "parameters" in request:
            binary = _flag("parameters", request["parameters"], "binary_data_output", default=False)
            explain = _flag("parameters", request["parameters"], EXPLAIN, default=False)
        added = [each.name for each in self._service.explaining().tensors] if explain else []
        wanted = request.get("outputs")
        if not wanted:
            return tuple((name, binary) for name in (*self._usual, *added))
        outputs: dict[str, bool] = {}
        for each in wanted:
            name, parameters = each["name"], each.get("parameters", {})
            if name in outputs:
                raise _fault(f"outputs.{name}", "is requested twice")
            _check_supported(f"outputs.{name}", parameters)
            outputs[name] = _flag(f"outputs.{name}", parameters, "binary_data", default=binary)
        return tuple((outputs | {name: binary for name in added if name not in outputs}).items())

    def _tensors(self, inputs: list[Tensor], binary: memoryview) -> dict[str, list[Any] | NDArray[Any]]:
        """Each feature's values, from the JSON or, in order, from the binary part."""
        tensors: dict[str, list[Any] | NDArray[Any]] = {}
        offset = 0
        for tensor in inputs:
            name = tensor["name"]
            known = name in self._features
            if not known and not self._service.schema.ignore_unknown:
                raise _fault(name, "is not a feature of this model", "unknown_field")
            if name in tensors:
                raise _fault(name, "is given twice", feature=name)
            feature = name if known else None
            parameters = tensor.get("parameters", {})
            _check_supported(name, parameters, feature)
            size = parameters.get("binary_data_size")
            count = self._rows_of(tensor) if known else 0
            if size is None:
                if known:
                    tensors[name] = _json_values(tensor, count)
            else:
                if (
                    isinstance(size, bool)
                    or not isinstance(size, int)
                    or not 0 <= size <= len(binary) - offset
                ):
                    follow = len(binary) - offset
                    raise _fault(
                        name, f"binary_data_size is {size}, but {follow} bytes follow", feature=feature
                    )
                if known:
                    tensors[name] = _binary_values(tensor, count, binary[offset : offset + size])
                offset += size
        if offset != len(binary):
            raise _fault("inputs", f"{len(binary) - offset} bytes follow the last tensor")
        return tensors

    def _rows_of(self, tensor: Tensor) -> int:
        """The number of rows of a tensor whose shape and type fit the feature."""
        name, shape = tensor["name"], tensor["shape"]
        if len(shape) == 2 and shape[1] != 1:
            raise _fault(name, f"shape must be [rows] or [rows, 1], not {shape}", feature=name)
        number = self._features[name].type == "number"
        if (tensor["datatype"] in _NUMBERS) != number or not (number or tensor["datatype"] == "BYTES"):
            wanted = "FP64 or another number type" if number else "BYTES"
            raise _fault(name, f"datatype must be {wanted}, not {tensor['datatype']}", "wrong_type", name)
        return shape[0]

    def _answer(
        self,
        request: InferRequest,
        outputs: Sequence[Output],
        rows: int,
        values_of: Callable[[str], NDArray[Any]],
    ) -> Answer:
        described: list[dict[str, Any]] = []
        binary: list[bytes] = []
        for name, as_binary in outputs:
            tensor = self._tensors_out[name]
            values = values_of(name)
            output: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape(rows)}
            texts = tensor.datatype == "BYTES"
            if as_binary:
                content = (
                    b"".join([self._encoded[text] for text in values])
                    if texts
                    else values.astype("<f8").tobytes()
                )
                output["parameters"] = {"binary_data_size": len(content)}
                binary.append(content)
            else:
                output["data"] = values.tolist() if texts else np.ascontiguousarray(values).ravel()
            described.append(output)
        answer: dict[str, Any] = {
            "model_name": self._manifest.name,
            "model_version": self._manifest.version,
            "outputs": described,
        }
        if "id" in request:
            answer["id"] = request["id"]
        head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        if not binary:
            return json_answer(head)
        length = (_HEADER_LENGTH, b"%d" % len(head))
        return b"".join((head, *binary)), 200, (_BINARY_TYPE, length)


def infer_request(
    tensors: Sequence[OutputTensor], tensor_fields: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """`InferRequest` for a model with these outputs, and with these fields of `Tensor` instead of its own."""
    tensor = _changed(Tensor, tensor_fields)
    output = _changed(RequestedOutput, {"name": Literal[tuple(each.name for each in tensors)]})
    return _changed(
        InferRequest,
        {
            "inputs": Annotated[list_of(tensor), Field(min_length=1), FailFast()],
            "outputs": NotRequired[Annotated[list_of(output), FailFast()]],
        },
    )


def _changed(described: type, fields: Mapping[str, Any]) -> Any:
    """A TypedDict with other types of some fields."""
    made = object_of(
        described.__name__, {**get_type_hints(described, include_extras=True), **fields}, _STRICT
    )
    made.__doc__ = described.__doc__
    return made


def _split(body: bytes, header_length: bytes | None) -> tuple[bytes, memoryview]:
    """The JSON, and the binary part after it."""
    if header_length is None:
        return body, memoryview(b"")
    # Python refuses to convert thousands of digits.
    end = int(header_length) if header_length.isdigit() and len(header_length) <= 20 else None
    if end is None or end > len(body):
        shown = header_length.decode("latin-1")
        raise _fault(HEADER_LENGTH, f"is {shown}, but the body has {len(body)} bytes")
    return body[:end], memoryview(body)[end:]


def _json_values(tensor: Tensor, count: int) -> list[Any] | NDArray[np.float64]:
    name = tensor["name"]
    values: list[Any] | NDArray[np.float64] | None = tensor.get("data")
    if values is None:
        raise _fault(name, "has neither data nor binary_data_size", "missing_field", name)
    # Rows of one value; other lists are left for the schema to refuse.
    if (
        isinstance(values, list)
        and len(tensor["shape"]) == 2
        and all(isinstance(value, list) and len(value) == 1 for value in values)
    ):
        values = [value for (value,) in values]
    if len(values) != count:
        raise _fault(name, f"shape says {count} values, data has {len(values)}", feature=name)
    if tensor["datatype"] in _RANGES:
        _check_datatype(name, tensor["datatype"], values)
    return values


def _check_datatype(name: str, datatype: str, values: list[Any] | NDArray[np.float64]) -> None:
    """Refuse numbers that a data type cannot hold; the schema checks other values."""
    low, high = _RANGES[datatype]
    whole = "INT" in datatype
    if isinstance(values, np.ndarray):
        wrong = (values < low) | (values > high)
        if whole:
            wrong |= values != np.trunc(values)
        row = int(wrong.argmax()) if wrong.any() else None
    else:
        row = next((row for row, value in enumerate(values) if not _fits(value, low, high, whole)), None)
    if row is not None:
        article = "a" if datatype.startswith("U") else "an"
        raise _fault(f"{name}.{row}", f"must be {article} {datatype} value", "wrong_type", name)


def _fits(value: Any, low: float, high: float, whole: bool) -> bool:
    if not isinstance(value, int | float) or value != value or value in (math.inf, -math.inf):  # noqa: PLR0124  NaN
        return True
    return low <= value <= high and not (whole and value % 1)


def _binary_values(tensor: Tensor, count: int, content: memoryview) -> list[Any] | NDArray[Any]:
    name, datatype = tensor["name"], tensor["datatype"]
    if "data" in tensor:
        raise _fault(name, "has both data and binary_data_size", feature=name)
    if datatype == "BYTES":
        return _decode(name, count, content)
    layout = np.dtype(_NUMBERS[datatype])
    if len(content) != count * layout.itemsize:
        made = len(content) / layout.itemsize
        raise _fault(name, f"shape says {count} values, binary_data_size makes {made:g}", feature=name)
    return np.frombuffer(content, layout)


def _decode(name: str, count: int, content: memoryview) -> list[Any]:
    """Strings, each after its length in four bytes."""
    values: list[Any] = []
    offset = 0
    while offset + 4 <= len(content) and len(values) < count:
        (length,) = struct.unpack_from("<I", content, offset)
        offset += 4
        try:
            values.append(str(content[offset : offset + length], "utf-8"))
        except UnicodeDecodeError:
            raise _fault(f"{name}.{len(values)}", "must be UTF-8", "wrong_type", name) from None
        offset += length
    if len(values) != count or offset != len(content):
        raise _fault(name, f"the binary data does not hold exactly {count} strings", feature=name)
    return values


def _encode(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<I", len(content)) + content


def _check_supported(where: str, parameters: Parameters, feature: str | None = None) -> None:
    """Refuse the extensions that would change the answer if they were ignored."""
    for name in ("shared_memory_region", "classification"):
        if parameters.get(name):
            raise _fault(where, f"parameter {name} is not supported", "unsupported", feature)


def _flag(where: str, parameters: Parameters, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _fault(f"{where}.{name}", "must be true or false", "wrong_type")
    return value


def _fault(where: str, reason: str, kind: Reason = "wrong_shape", feature: str | None = None) -> RequestError:
    return invalid([Detail(where, reason, kind, feature)])
