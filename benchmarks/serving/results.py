"""The results, stored as JSON, so that one part can be measured again and the report rewritten."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.serving.errors import BenchmarkError

FILE = "serving.json"
PartName = Literal["one-row", "peers", "batch", "mixed", "start"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figures(Frozen):
    """One server under load, once."""

    per_second: float
    """Rows per second; with one row per request, also requests."""
    p50_ms: float
    p99_ms: float
    busy: float
    """Share of its core that the server used. Well below 1, the server was not the bottleneck."""
    rss_mb: float
    pss_mb: float
    """Resident and proportional memory at the end, in 10^6 bytes."""
    background_per_second: float | None = None
    """Rows of the other client, if there was one."""


class Spread(NamedTuple):
    """Several values of one quantity."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


class Round(Frozen):
    """One measurement between two measurements of its base."""

    before: Figures
    figures: Figures
    after: Figures

    def beside(self, figure: Callable[[Figures], float]) -> float:
        return (figure(self.before) + figure(self.after)) / 2


class Comparison(Frozen):
    """A target compared with a base, in several rounds.

    Attributes:
        name: what was measured.
        base: what it is compared with.
        ours_is_base: whether the ratio says how many times as fast the base is, and not the reverse.
        rounds: the figures.
        least: the goal for the ratio.
        most_p99: the goal for the ratio of the 99th percentiles.
    """

    name: str
    base: str
    ours_is_base: bool = False
    rounds: tuple[Round, ...]
    least: float | None = None
    most_p99: float | None = None

    def ratios(self) -> list[float]:
        """How many times as fast ours is, in each round."""
        ratios = [each.figures.per_second / each.beside(_per_second) for each in self.rounds]
        return [1 / each for each in ratios] if self.ours_is_base else ratios

    def p99_ratios(self) -> list[float]:
        """The 99th percentile in each round as a multiple of the base's."""
        return [each.figures.p99_ms / each.beside(_p99) for each in self.rounds]

    @property
    def is_fast(self) -> bool | None:
        """Whether the goal is met, None if there is none."""
        return None if self.least is None else Spread.of(self.ratios()).median >= self.least

    @property
    def is_steady(self) -> bool | None:
        """The same of the 99th percentile."""
        return None if self.most_p99 is None else Spread.of(self.p99_ratios()).median <= self.most_p99

    def all_figures(self) -> list[tuple[str, Figures]]:
        """Everything that was measured, by name."""
        base = [(self.base, each) for round_ in self.rounds for each in (round_.before, round_.after)]
        return [*base, *((self.name, round_.figures) for round_ in self.rounds)]

    def median(self, figure: Callable[[Figures], float]) -> float:
        return statistics.median(figure(each.figures) for each in self.rounds)

    def median_beside(self, figure: Callable[[Figures], float]) -> float:
        return statistics.median(each.beside(figure) for each in self.rounds)


class Quantity(Frozen):
    """A quantity measured several times without a base."""

    name: str
    unit: str
    values: tuple[float, ...]
    most: float | None = None
    """The goal."""

    @property
    def is_small(self) -> bool | None:
        """Whether the goal is met, None if there is none."""
        return None if self.most is None else Spread.of(self.values).median <= self.most


class Part(Frozen):
    """The results of one part of the benchmark, and its conditions."""

    circumstances: str = ""
    comparisons: tuple[Comparison, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = {}
    """The targets that were not measured, and why."""

    def goals(self) -> list[tuple[str, bool]]:
        """Each goal by name, and whether it is met."""
        found = [(each.name, each.is_fast) for each in self.comparisons]
        found += [(f"p99 of {each.name}", each.is_steady) for each in self.comparisons]
        found += [(each.name, each.is_small) for each in self.quantities]
        return [(name, met) for name, met in found if met is not None]

    def busy(self) -> dict[str, float]:
        """The lowest share of its core that each server used, by name."""
        shares: dict[str, float] = {}
        for each in self.comparisons:
            for name, figures in each.all_figures():
                shares[name] = min(figures.busy, shares.get(name, figures.busy))
        return shares


class Results(Frozen):
    parts: dict[PartName, Part]

    def with_part(self, name: PartName, part: Part) -> Results:
        """A copy with one part new, in the order in which `PartName` has them."""
        parts = {**self.parts, name: part}
        return Results(parts={each: parts[each] for each in get_args(PartName) if each in parts})


def read(folder: Path) -> Results:
    """The results of earlier runs in a folder.

    Raises:
        BenchmarkError: there is a file that this version does not understand.
    """
    path = folder / FILE
    if not path.exists():
        return Results(parts={})
    try:
        return Results.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BenchmarkError(f"{path} is of another version ({where}: {first['msg']}): remove it") from None


def _per_second(figures: Figures) -> float:
    return figures.per_second


def _p99(figures: Figures) -> float:
    return figures.p99_ms
