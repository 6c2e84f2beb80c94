"""How many rows a request may have: its values in memory and its answer have the same size limit.

The size of a body says little about them. A row takes one byte per feature, or none if its values may be missing, and its
answer names every class. So the rows are counted before anything is computed.
"""

from __future__ import annotations

import struct

import orjson

from app.contract import Manifest
from app.errors import RequestError
from app.predictor import LABEL, PROBABILITIES

_NUMBER = len("2.2250738585072014e-308,")
_INSTANCE = len('{"label":,"probabilities":{}},')

Output = tuple[str, bool]
"""The name of an output of the inference protocol, and whether it is binary."""


class RowLimits:
    """The row limit of each shape of request; a single row is always answered."""

    def __init__(self, manifest: Manifest, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # In memory every value and every probability takes eight bytes, whatever the shape of the request.
        self._values = 8 * max(len(manifest.features), len(manifest.classes))
        names = [len(orjson.dumps(name)) for name in manifest.classes]
        probabilities = _NUMBER * len(names)
        self._outputs: dict[Output, int] = {
            (LABEL, False): max(names) + 1,
            (LABEL, True): struct.calcsize("I") + max(len(name.encode()) for name in manifest.classes),
            (PROBABILITIES, False): probabilities,
            (PROBABILITIES, True): 8 * len(names),
        }
        self._tensors: dict[tuple[Output, ...], int] = {}
        self.instances = self._most(_INSTANCE + max(names) + sum(names) + len(names) + probabilities)
        self.columns = self._most(max(names) + 1 + probabilities)

    def tensors(self, outputs: tuple[Output, ...]) -> int:
        """The row limit for these outputs of the inference protocol, each at most once."""
        most = self._tensors.get(outputs)
        if most is None:
            most = self._tensors[outputs] = self._most(sum(self._outputs[each] for each in outputs))
        return most

    def check(self, rows: int, most: int) -> None:
        """Raise a 413 that says how many rows fit, if there are too many."""
        if rows > most:
            message = f"{rows} rows: values or answer would exceed {self._max_bytes} bytes; send at most {most} rows"
            raise RequestError(413, "too_many_rows", message, reason="too_large")

    def _most(self, answer_bytes: int) -> int:
        """How many rows fit, if each takes so many bytes in the answer."""
        return max(1, self._max_bytes // max(self._values, answer_bytes))
