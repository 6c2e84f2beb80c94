"""How many rows a request may have: its values in memory and its answer have the same size limit.

The size of a body says little about them. A row takes one byte per feature, or none if its values may be missing, and its
answer names every class. So the rows are counted before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import RequestError

NUMBER_BYTES = len("2.2250738585072014e-308,")
"""The longest positive number in JSON, with a comma."""

Output = tuple[str, bool]
"""The name of an output of the inference protocol, and whether it is binary."""


@dataclass(frozen=True)
class Sizes:
    """What the answer to a row takes at most."""

    numbers: int
    """In memory."""
    instance: int
    """Bytes, in the answer to `instances`."""
    columns: int
    """Bytes, in the answer to `columns`."""
    tensors: Mapping[Output, int]
    """Bytes, in each output of the inference protocol."""


class RowLimits:
    """The row limit of each shape of request; a single row is always answered.

    Args:
        columns: of a row.
        answer: what the answer to a row takes.
        max_bytes: for all rows.
        most: rows that can be computed in time, if that is a limit too.
    """

    def __init__(self, columns: int, answer: Sizes, max_bytes: int, most: int | None = None) -> None:
        self._most_in_time = most
        self._max_bytes = max_bytes
        # In memory every value of a row and every number of its answer takes eight bytes, whatever the shape of the request.
        self._values = 8 * max(columns, answer.numbers)
        self._outputs = answer.tensors
        self._tensors: dict[tuple[Output, ...], int] = {}
        self.instances = self._most(answer.instance)
        self.columns = self._most(answer.columns)

    def tensors(self, outputs: tuple[Output, ...]) -> int:
        """The row limit for these outputs of the inference protocol, each at most once."""
        most = self._tensors.get(outputs)
        if most is None:
            most = self._tensors[outputs] = self._most(sum(self._outputs[each] for each in outputs))
        return most

    def check(self, rows: int, most: int) -> None:
        """Raise a 413 that says how many rows fit, if there are too many."""
        if rows > most:
            reason = f"values or answer would exceed {self._max_bytes} bytes"
            if most == self._most_in_time:
                reason = "explaining them would take too long"
            message = f"{rows} rows: {reason}; send at most {most} rows"
            raise RequestError(413, "too_many_rows", message, reason="too_large")

    def _most(self, answer_bytes: int) -> int:
        """How many rows fit, if each takes so many bytes in the answer."""
        most = max(1, self._max_bytes // max(self._values, answer_bytes))
        return most if self._most_in_time is None else min(most, self._most_in_time)
