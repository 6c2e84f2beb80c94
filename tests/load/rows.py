"""Draws rows that look like the training data, out of nothing but a bundle's manifest.

Each feature is drawn on its own: a bin by its share in training, then a value of the feature's grid inside
that bin. So the load spreads over bins, categories and gaps as the training rows did, and a load test alone
raises no drift alert. How features depend on each other is not in the manifest and not imitated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import accumulate
from random import Random

from app.contract import Bin, Feature, Manifest, NumberFeature
from app.moments import written

Value = float | str | None
Row = dict[str, Value]
_Draw = Callable[[Random], Value]


class RowSource:
    """Rows for one manifest.

    Attributes:
        manifest: what the rows fit.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._draws = {feature.name: _draw_of(feature) for feature in manifest.features}

    def draw(self, random: Random) -> Row:
        """A valid row: every feature by name, None where it is missing."""
        return {name: draw(random) for name, draw in self._draws.items()}


def _draw_of(feature: Feature) -> _Draw:
    """A function that draws one feature's value."""
    in_bin: list[_Draw] = []
    if feature.type == "category":
        in_bin += [_always(category) for category in feature.categories]
    elif feature.type == "datetime":
        first, step, count = feature.grid()
        in_bin.append(lambda random: written(first + random.randint(0, count) * step))
    else:
        cuts = (feature.minimum, *feature.edges, feature.maximum)
        in_bin += [_on_grid(feature, index, *cuts[index : index + 2]) for index in range(len(cuts) - 1)]
    if feature.missing:
        in_bin.append(_always(None))
    limits = _cumulated(feature.bins)
    return lambda random: random.choices(in_bin, cum_weights=limits)[0](random)


def _on_grid(feature: NumberFeature, index: int, low: float, high: float) -> _Draw:
    """Draw a multiple of the step with low <= x < high; the last bin includes the maximum.

    Decimals, because 4.9 / 0.1 is above 49 in binary, and 49 * 0.1 is not always what a person writes.
    """
    step, lowest, highest = (_decimal(value) for value in (feature.step, low, high))
    first = int((lowest / step).to_integral_value(ROUND_CEILING))
    last = int((highest / step).to_integral_value(ROUND_FLOOR))
    if index < len(feature.edges) and last * step >= highest:
        last -= 1
    first_inside = max(first, int((_decimal(feature.minimum) / step).to_integral_value(ROUND_CEILING)))
    last_inside = min(last, int((_decimal(feature.maximum) / step).to_integral_value(ROUND_FLOOR)))
    if first_inside > last_inside:
        # No grid value is both in this bin and in the range; the range is what a request is held to.
        return _always(min(max(low, feature.minimum), feature.maximum))
    return lambda random: float(random.randint(first_inside, last_inside) * step)


def _always(value: Value) -> _Draw:
    return lambda _: value


def _cumulated(bins: Sequence[Bin]) -> list[float]:
    shares = [each.share for each in bins]
    return list(accumulate(shares if any(shares) else [1.0] * len(shares)))


def _decimal(value: float) -> Decimal:
    """The number as it is written, so 0.1 and not its binary neighbour."""
    return Decimal(repr(value))
