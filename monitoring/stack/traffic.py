"""Sends requests like a client's: rows drawn from the training data's bins, with a few mistakes.

Each feature is drawn separately, first a bin by its share in training and then a value inside the bin, so no feature drifts
unless `--drift FEATURE=SHIFT` adds SHIFT, in the feature's own unit, to all its values. The mix of predicted classes may
differ from training's where features depend on each other, as the pixels of an image do. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import httpx

from app.contract import Feature, Manifest
from app.moments import written
from common.command import run
from common.errors import EspalierError
from monitoring.arguments import number

Value = float | str | None
ROWS_OF_A_BATCH = 10
SHARE_OF_BATCHES = 0.1
SECONDS = 10
"""A request that takes longer has failed."""


def main() -> None:
    options = _parser().parse_args()
    try:
        with httpx.Client(base_url=options.host, timeout=SECONDS, trust_env=False) as client:
            manifest = Manifest.model_validate_json(client.get("/model").raise_for_status().content)
            send(client, manifest, options)
    except (httpx.HTTPError, ValueError) as error:
        raise EspalierError(f"{options.host} is not our service, or has ended: {error}") from None


def send(client: httpx.Client, manifest: Manifest, options: argparse.Namespace) -> None:
    """Send `--rate` requests a second, without end."""
    chance = random.Random(options.seed)  # noqa: S311
    draw = source(manifest, dict(options.drift))
    due = time.monotonic()
    while True:
        due += chance.expovariate(options.rate)
        time.sleep(max(0.0, due - time.monotonic()))
        rows = ROWS_OF_A_BATCH if chance.random() < SHARE_OF_BATCHES else 1
        instances = [draw(chance) for _ in range(rows)]
        if chance.random() < options.mistakes:
            # The most frequent mistake: a field is missing.
            instances[0].pop(next(iter(instances[0])))
        client.post("/predict", json={"instances": instances})
        # Do not catch up after the machine was suspended.
        due = max(due, time.monotonic() - 1)


def source(manifest: Manifest, shifts: Mapping[str, float]) -> Callable[[random.Random], dict[str, Value]]:
    """A function that draws a row.

    Raises:
        EspalierError: a shift names something that is not a number of the model.
    """
    numbers = [feature.name for feature in manifest.features if feature.type == "number"]
    for name in shifts:
        if name not in numbers:
            raise EspalierError(f"--drift {name}=…: the model's numbers are {', '.join(numbers)}")
    draws = {each.name: _draw_of(each, shifts.get(each.name, 0.0)) for each in manifest.features}
    return lambda chance: {name: draw(chance) for name, draw in draws.items()}


def _draw_of(feature: Feature, shift: float) -> Callable[[random.Random], Value]:
    shares = [each.share for each in feature.bins]
    if feature.type == "category":
        values: list[Value] = [*feature.categories, *([None] if feature.missing else [])]
        return lambda chance: chance.choices(values, shares)[0]
    if feature.type == "datetime":
        first, step, count = feature.grid()

        def moment(chance: random.Random) -> Value:
            gap = chance.choices([False, True][: len(shares)], shares)[0]
            return None if gap else written(first + chance.randint(0, count) * step)

        return moment
    cuts = (feature.minimum, *feature.edges, feature.maximum)
    ranges: list[tuple[float, float] | None] = [*pairwise(cuts), *([None] if feature.missing else [])]
    low, high = feature.minimum, feature.maximum

    def draw(chance: random.Random) -> Value:
        chosen = chance.choices(ranges, shares)[0]
        if chosen is None:
            return None
        start, end = chosen
        # The end itself belongs to the next bin.
        value = min(start + (end - start) * chance.random(), math.nextafter(end, start))
        return min(max(value + shift, low), high)

    return draw


def shift(text: str) -> tuple[str, float]:
    """`FEATURE=SHIFT`."""
    name, _, amount = text.rpartition("=")
    try:
        value = float(amount)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not FEATURE=SHIFT, such as petal_length=1.5")
    return name, value


rate = number(lambda value: 0 < value <= 10_000, "no number of requests a second")
share = number(lambda value: 0 <= value <= 1, "no share: 0 to 1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.stack.traffic", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--host", default="http://127.0.0.1:8000", help="(default: %(default)s)")
    add("--rate", type=rate, default=20, help="requests a second (default: %(default)s)")
    add(
        "--mistakes",
        type=share,
        default=0.01,
        help="share of the requests with a mistake (default: %(default)s)",
    )
    add("--drift", type=shift, action="append", default=[], metavar="FEATURE=SHIFT")
    add("--seed", type=int, default=None, help="the same rows again")
    return parser


if __name__ == "__main__":
    run(main)
