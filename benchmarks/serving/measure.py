"""Measures servers one after another, each between two measurements of its base.

A machine drifts by a third within minutes, so figures of one round are only ever compared with figures of the
same round.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.serving import wrk
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.exchange import Exchange, verify
from benchmarks.serving.processes import Cores, Running, Server, running
from benchmarks.serving.results import Comparison, Figures, Round

WARM_UP_SECONDS = 1
MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """A server and its load.

    Attributes:
        name: for the report.
        server: how it is started.
        exchange: the load.
        background: what another client sends at the same time.
        least: the goal for the ratio to the base, or of the base to this if the base is ours.
        most_p99: the goal for the ratio of the 99th percentiles.
    """

    name: str
    server: Server
    exchange: Exchange
    background: Exchange | None = None
    least: float | None = None
    most_p99: float | None = None


@dataclass(frozen=True)
class Bench:
    """The settings of all measurements."""

    cores: Cores
    rounds: int
    seconds: int
    say: Callable[[str], None]

    def compare(
        self,
        base: Target,
        targets: Sequence[Target],
        *,
        ours_is_base: bool = False,
        skipped: dict[str, str] | None = None,
    ) -> tuple[Comparison, ...]:
        """Measure each target between two measurements of the base, in every round.

        Args:
            base: what the targets are compared with.
            targets: what is measured.
            ours_is_base: which of the two is to be faster.
            skipped: takes the names of targets that fail, and why; without it the first failure is raised.

        Raises:
            BenchmarkError: a server does not start, or an answer was wrong.
        """
        rounds: dict[str, list[Round]] = {each.name: [] for each in targets}
        for number in range(1, self.rounds + 1):
            before = self.measure(base)
            for target in [each for each in targets if each.name in rounds]:
                try:
                    figures = self.measure(target)
                except BenchmarkError as error:
                    if skipped is None:
                        raise
                    self.say(f"left out: {error}")
                    skipped[target.name] = str(error).removeprefix(f"{target.name}: ")
                    del rounds[target.name]
                    continue
                after = self.measure(base)
                rounds[target.name].append(Round(before=before, figures=figures, after=after))
                before = after
                self._report(number, target, figures, base, after)
        return tuple(
            Comparison(
                name=each.name,
                base=base.name,
                ours_is_base=ours_is_base,
                rounds=tuple(rounds[each.name]),
                least=each.least,
                most_p99=each.most_p99,
            )
            for each in targets
            if each.name in rounds
        )

    def measure(self, target: Target) -> Figures:
        """Start a server, check its answers, warm it up and load it.

        Raises:
            BenchmarkError: an answer was wrong, before or under load.
        """
        with self._verified(target) as server:
            return self._load(server, target)

    def send(self, server: Running, exchange: Exchange, seconds: int) -> wrk.Outcome:
        """Load a server.

        Raises:
            BenchmarkError: not every answer was good.
        """
        with wrk.sending(server, exchange, seconds, self.cores.client) as process:
            outcome = wrk.finish(process)
        _check(outcome)
        return outcome

    @contextmanager
    def _verified(self, target: Target) -> Iterator[Running]:
        try:
            with running(target.server, self.cores.server) as server:
                exchange = target.exchange
                server.first_answer("POST", exchange.path, exchange.bodies[0], exchange.headers)
                verify(server, exchange)
                yield server
        except BenchmarkError as error:
            raise BenchmarkError(f"{target.name}: {error}") from error

    def _load(self, server: Running, target: Target) -> Figures:
        with self._background(server, target.background) as background:
            self.send(server, target.exchange, WARM_UP_SECONDS)
            cpu, clock = server.cpu_seconds(), time.perf_counter()
            outcome = self.send(server, target.exchange, self.seconds)
            busy = (server.cpu_seconds() - cpu) / (time.perf_counter() - clock)
            rss, pss = server.memory()
        return Figures(
            per_second=outcome.requests_per_second * target.exchange.rows,
            p50_ms=outcome.p50_ms,
            p99_ms=outcome.p99_ms,
            busy=busy,
            rss_mb=rss / MB,
            pss_mb=pss / MB,
            background_per_second=background[0] if background else None,
        )

    @contextmanager
    def _background(self, server: Running, exchange: Exchange | None) -> Iterator[list[float]]:
        """Another client with one connection; the list has its rows per second at the end."""
        rates: list[float] = []
        if exchange is None:
            yield rates
            return
        verify(server, exchange)
        seconds = 10 * (WARM_UP_SECONDS + self.seconds)
        with wrk.sending(server, exchange, seconds, self.cores.client, connections=1) as process:
            yield rates
            # wrk stops early at this signal and prints its results so far.
            process.send_signal(signal.SIGINT)
            outcome = wrk.finish(process)
        _check(outcome)
        rates.append(outcome.requests_per_second * exchange.rows)

    def _report(self, number: int, target: Target, figures: Figures, base: Target, beside: Figures) -> None:
        self.say(
            f"round {number} of {self.rounds}: {target.name} {figures.per_second:,.0f}/s, "
            f"p99 {figures.p99_ms:.2f} ms; {base.name} {beside.per_second:,.0f}/s, p99 {beside.p99_ms:.2f} ms"
        )


def _check(outcome: wrk.Outcome) -> None:
    if outcome.faults:
        raise BenchmarkError(f"under load {'; '.join(outcome.faults)}")
