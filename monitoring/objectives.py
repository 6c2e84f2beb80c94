"""The table of service objectives: reads and checks `objectives.yaml`, from which rules, dashboards and budgets follow."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import EspalierError
from monitoring.prometheus import seconds

FILE = Path(__file__).with_name("objectives.yaml")

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int | float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Time = Annotated[str, Field(pattern=r"^[1-9]\d*[smhd]$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Table):
    seconds: Positive
    share: Share


class BurnRate(_Table):
    severity: Literal["page", "ticket"]
    wait: Time = Field(alias="for")
    long: Time
    short: Time
    factor: Positive


class Canary(_Table):
    error_share: Share


class LoadTest(_Table):
    network_seconds: Positive


class Drift(_Table):
    look: Positive
    alert: Positive
    beyond: Count
    windows: Count
    floor: Share
    rows: Count
    rows_per_bin: dict[Literal["1h", "24h"], Count]


class Ages(_Table):
    look: Count
    alert: Count


class Objectives(_Table):
    """The whole table."""

    period_days: Count
    availability: Share
    latency: Latency
    burn_rates: tuple[BurnRate, ...]
    minimum_failures: Count
    canary: Canary
    load_test: LoadTest
    rejected_share: Share
    drift: Drift
    model_age_days: Ages

    @property
    def error_budget(self) -> float:
        """Share of the answers that may be errors."""
        return _rest(self.availability)

    @property
    def slow_budget(self) -> float:
        """Share of the answers that may be slow."""
        return _rest(self.latency.share)

    @property
    def windows(self) -> list[str]:
        """Every window of a burn rate, shortest first."""
        found = {each for row in self.burn_rates for each in (row.long, row.short)}
        return sorted(found, key=seconds)

    def pages(self) -> list[BurnRate]:
        """The rows that wake somebody, slowest first."""
        return sorted((row for row in self.burn_rates if row.severity == "page"), key=lambda row: row.factor)


@cache
def objectives(file: Path = FILE) -> Objectives:
    """The table as it is in the file.

    Raises:
        EspalierError: the file cannot be read, or a value makes no sense; the message names it.
    """
    try:
        return Objectives.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EspalierError(f"{file.name}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise EspalierError(f"{file.name}: {where}: {first['msg']}") from None


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def spaced(time: str) -> str:
    """A time for people: `5 min` for `5m`."""
    return f"{time[:-1]} {'min' if time[-1] == 'm' else time[-1]}"


def _rest(share: float) -> float:
    # The nearest decimal to 1 - 0.999 is 0.001, but 1 - 0.999 is not.
    return round(1 - share, 12)
