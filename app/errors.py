"""The service's errors: one exception, one JSON shape, a closed list of reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import orjson

from app.http import ResponseHeaders

Reason = Literal[
    "invalid_json",
    "wrong_shape",
    "missing_field",
    "unknown_field",
    "wrong_type",
    "not_finite",
    "out_of_range",
    "unknown_category",
    "unsupported",
    "unpredictable",
    "too_large",
    "media_type",
    "overloaded",
    "feature_store",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Label values of `model_rejected_total`: closed, so that no client can create series."""

MAX_DETAILS = 20
_MAX_TEXT = 200


@dataclass(frozen=True)
class Detail:
    """One fault: its place, its explanation and its kind."""

    field: str
    reason: str
    kind: Reason
    feature: str | None = None
    """The feature at fault, for metrics; None for anything else, such as an unknown name."""


class RequestError(Exception):
    """A request whose answer is an error.

    Attributes:
        status: the HTTP status.
        code: for programs; stable between releases.
        reason: the series of `model_rejected_total` that counts it, if any.
        headers: additional ones of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        reason: Reason | None = None,
        details: Sequence[Detail] = (),
        headers: ResponseHeaders = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.reason = reason
        self.details = tuple(details[:MAX_DETAILS])
        self.headers = headers

    def __reduce__(self) -> tuple[Callable[[], RequestError], tuple[()]]:
        """For pickle, which would call the class with the message alone."""
        keywords = {"reason": self.reason, "details": self.details, "headers": self.headers}
        return partial(RequestError, self.status, self.code, self.message, **keywords), ()  # type: ignore[arg-type]

    def body(self) -> bytes:
        return error_body(self.code, self.message, self.details)


def invalid(details: Sequence[Detail]) -> RequestError:
    """The 422 for faults in fields; its message is the first fault and the number of further ones."""
    first = details[0]
    message = f"{first.field}: {first.reason}" if first.field else first.reason
    more = min(len(details), MAX_DETAILS) - 1
    if more:
        message += f" (and {more} more)"
    return RequestError(422, "invalid_input", message, reason=first.kind, details=details)


def error_body(code: str, message: str, details: Sequence[Detail] = ()) -> bytes:
    """The JSON of any error. `error` is a string because the Open Inference Protocol requires one."""
    return orjson.dumps(
        {
            "error": _one_line(message),
            "code": code,
            "details": [
                {"field": _one_line(each.field), "reason": _one_line(each.reason)} for each in details
            ],
        }
    )


def _one_line(text: str) -> str:
    """Text that may quote a client, shortened and printable, so that it cannot damage a log or a terminal."""
    short = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    return short if short.isprintable() else "".join(c if c.isprintable() else "�" for c in short)
