from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from http.client import HTTPMessage
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.serving import guard, plot, report
from benchmarks.serving.__main__ import main, measure
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.exchange import Exchange, Prediction, read_instance, verify
from benchmarks.serving.measure import Bench, Target
from benchmarks.serving.processes import Answer, Cores, Running, Server, pick_cores
from benchmarks.serving.results import FILE, Comparison, Figures, Part, Quantity, Results, Round, read
from benchmarks.serving.subjects import FOREST, Subject, read_subjects
from benchmarks.serving.wrk import parse
from tests.bundles import IRIS_FEATURES, write_number_bundle
from tests.tools import require

WRK = """\
Running 5s test @ http://127.0.0.1:8000/predict
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   332.15us  101.20us   4.11ms   93.42%
    Req/Sec    48.12k     1.52k   50.33k    71.00%
  Latency Distribution
     50%  {p50}
     75%  340.00us
     90%  402.00us
     99%  {p99}
  240601 requests in 5.00s, 61.26MB read
{faults}Requests/sec:  48117.37
Transfer/sec:     12.25MB
"""


# ------------------------------------------------------------------------------------------------- wrk


@pytest.mark.parametrize(
    ("p50", "p99", "expected"),
    [
        ("312.00us", "0.95ms", (0.312, 0.95)),
        ("12.50ms", "1.20s", (12.5, 1200)),
        ("2.00s", "1.50m", (2000, 90_000)),
    ],
)
def test_times_are_read_in_every_unit(p50: str, p99: str, expected: tuple[float, float]) -> None:
    outcome = parse(WRK.format(p50=p50, p99=p99, faults=""))
    assert (outcome.p50_ms, outcome.p99_ms) == pytest.approx(expected)


def test_the_rate_is_that_of_the_whole_run_and_not_a_threads_average_in_thousands() -> None:
    outcome = parse(WRK.format(p50="1us", p99="1us", faults=""))
    assert outcome.requests_per_second == 48117.37
    assert outcome.faults == ()


def test_errors_under_load_are_noticed() -> None:
    faults = "  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 790\n"
    outcome = parse(WRK.format(p50="1us", p99="1us", faults=faults))
    assert outcome.faults == (
        "790 answers were errors",
        "connections broke (connect 0, read 3, write 0, timeout 1)",
    )


def test_output_without_figures_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="printed no figures: unable to connect"):
        parse("unable to connect to 127.0.0.1:8000 Connection refused")


# ---------------------------------------------------------------------------------------------- answers


class Scripted:
    """Answers every request with the same document."""

    def __init__(self, document: object, status: int = 200) -> None:
        self.document, self.status = document, status

    def request(self, *_: object) -> Answer:
        return Answer(self.status, HTTPMessage(), json.dumps(self.document).encode())


def exchange() -> Exchange:
    expected = Prediction(["yes"], np.array([[0.25, 0.75]]))
    return Exchange("/predict", [b"{}"], expected, read_instance(("no", "yes")))


def ask(document: object, status: int = 200) -> None:
    verify(cast(Running, Scripted(document, status)), exchange())


def test_the_right_answer_is_accepted_within_the_precision_of_float32() -> None:
    ask({"label": "yes", "probabilities": {"no": 0.25 + 1e-7, "yes": 0.75}})


@pytest.mark.parametrize(
    ("document", "status", "complaint"),
    [
        ({"label": "no", "probabilities": {"no": 0.25, "yes": 0.75}}, 200, "other labels than the model"),
        ({"label": "yes", "probabilities": {"no": 0.35, "yes": 0.65}}, 200, "are 0.1 off"),
        ({"label": "yes", "probabilities": {"no": float("nan"), "yes": 0.75}}, 200, "are nan off"),
        ({"label": "yes"}, 200, "an answer of another shape"),
        ({"error": "no model"}, 503, "is answered with 503"),
    ],
)
def test_a_wrong_answer_stops_the_measurement(document: object, status: int, complaint: str) -> None:
    with pytest.raises(BenchmarkError, match=f"request 1 of 1 to /predict .*{complaint}"):
        ask(document, status)


# ---------------------------------------------------------------------------------------------- figures


def figures(per_second: float, p99: float = 1.0, busy: float = 0.98) -> Figures:
    return Figures(per_second=per_second, p50_ms=0.5, p99_ms=p99, busy=busy, rss_mb=90, pss_mb=80)


def drifting(name: str = "ours", **goals: float) -> Comparison:
    """The machine halves its speed from round to round; what is compared keeps its share of it."""
    rounds = [
        Round(
            before=figures(11_000 * speed, p99=1 / speed),
            figures=figures(share * 10_000 * speed, p99=3 / speed),
            after=figures(9_000 * speed, p99=1 / speed),
        )
        for speed, share in ((1, 0.6), (0.5, 0.7), (0.25, 0.8))
    ]
    return Comparison(name=name, base="bare", rounds=tuple(rounds), **goals)


def test_ratios_are_made_within_a_round() -> None:
    comparison = drifting()
    assert comparison.ratios() == pytest.approx([0.6, 0.7, 0.8])
    assert comparison.p99_ratios() == pytest.approx([3, 3, 3])


def test_what_is_compared_with_ours_says_how_many_times_as_fast_ours_is() -> None:
    peer = drifting().model_copy(update={"ours_is_base": True})
    assert peer.ratios() == pytest.approx([1 / 0.6, 1 / 0.7, 1 / 0.8])


@pytest.mark.parametrize(("least", "met"), [(0.69, True), (0.71, False), (None, None)])
def test_the_median_decides_about_a_goal(least: float | None, met: bool | None) -> None:
    assert drifting().model_copy(update={"least": least}).is_fast is met


class Failing(Bench):
    """Measures nothing; the target called "flaky" fails in the second round."""

    def measure(self, target: Target) -> Figures:
        measured.append(target.name)
        if target.name == "flaky" and measured.count("flaky") == 2:
            raise BenchmarkError("flaky: it hangs")
        return figures(100)


measured: list[str] = []


def compare(skipped: dict[str, str] | None) -> tuple[Comparison, ...]:
    measured.clear()
    server = Server(["none"])
    base, flaky, steady = (Target(name, server, exchange()) for name in ("base", "flaky", "steady"))
    bench = Failing(Cores(1, 0), rounds=3, seconds=1, say=lambda _: None)
    return bench.compare(base, [flaky, steady], skipped=skipped)


def test_a_peer_that_fails_is_left_out_and_named() -> None:
    skipped: dict[str, str] = {}
    (steady,) = compare(skipped)
    assert (steady.name, len(steady.rounds)) == ("steady", 3)
    assert skipped == {"flaky": "it hangs"}
    assert measured[-3:] == ["base", "steady", "base"]


def test_anything_else_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(BenchmarkError, match="it hangs"):
        compare(None)


def made_up() -> Results:
    start = Quantity(name="start", unit="s", values=(0.31, 0.30, 0.42), most=0.45)
    peer = Comparison(
        name="peer",
        base="ours",
        ours_is_base=True,
        rounds=(Round(before=figures(9_000), figures=figures(71, 322, busy=0.5), after=figures(9_000)),),
        least=100,
    )
    return Results(
        parts={
            "one-row": Part(
                circumstances="On a laptop.", comparisons=(drifting("svm", least=0.65, most_p99=2),)
            ),
            "peers": Part(
                circumstances="On a server.", comparisons=(peer,), skipped={"other": "uv is not installed"}
            ),
            "start": Part(circumstances="On a server.", quantities=(start,)),
        }
    )


def test_the_report_says_what_was_met_and_what_was_not() -> None:
    text = report.markdown(made_up(), picture=False)
    assert "| svm | 3,500 | 5,000 | 0.70 (0.60–0.80) | at least 0.65 | yes |" in text
    assert "| svm | 0.50 | 6.00 | 2.00 | 3.00 (3.00–3.00) | at most 2 | **no** |" in text
    assert "| peer | 71 | 9,000 | 127 (127–127) | at least 100 | yes |" in text
    assert "| start | 0.31 s | 0.3–0.42 | at most 0.45 s | yes |" in text
    assert "3 of 4 goals are met. Not met: p99 of svm. Not measured: other." in text


def test_the_report_says_what_is_missing_and_what_to_doubt() -> None:
    text = report.markdown(made_up(), picture=False)
    assert "other was not measured: uv is not installed" in text
    assert "a server had at times only this much: peer 50%" in text
    assert text.count("On a laptop.") == 1
    assert "serving.svg" not in text


def test_circumstances_that_all_parts_share_are_told_once() -> None:
    parts = {
        name: part.model_copy(update={"circumstances": "On a laptop."})
        for name, part in made_up().parts.items()
    }
    assert report.markdown(Results(parts=parts), picture=True).count("On a laptop.") == 1


def test_the_picture_names_what_it_shows() -> None:
    picture = plot.svg(made_up())
    assert picture is not None
    shown = [each.text for each in ElementTree.fromstring(picture).iter() if each.text]
    assert {"svm", "3,500 · 0.70 of bare", "peer", "71 · ours is 127 × as fast"} <= set(shown)
    assert plot.svg(made_up()) == picture


def test_there_is_no_picture_of_nothing() -> None:
    assert plot.svg(Results(parts={"start": made_up().parts["start"]})) is None


def test_a_part_that_is_measured_again_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(made_up().model_dump_json())
    again = read(tmp_path).with_part("peers", Part(circumstances="Today."))
    assert list(again.parts) == ["one-row", "peers", "start"]
    assert again.parts["peers"].circumstances == "Today."
    assert again.parts["one-row"] == made_up().parts["one-row"]


def test_figures_of_another_version_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"parts": {"one-row": {"speed": 3}}}')
    with pytest.raises(BenchmarkError, match=r"is of another version .*: remove it"):
        read(tmp_path)


# ----------------------------------------------------------------------------------------- command line


def test_one_core_is_not_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    require("wrk")
    require("taskset")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert main(["--quick"]) == 1
    assert capsys.readouterr().err.startswith("error: two cores are needed")


def test_a_missing_wrk_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--quick"]) == 1
    assert capsys.readouterr().err == "error: wrk is not installed, and it sends the load: apt install wrk\n"


def test_without_models_there_is_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"there are no models to measure .* run make first"):
        read_subjects(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "arguments", [["--only", "one-row,lunch"], ["--rounds", "0"], ["--seconds", "half a minute"]]
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert arguments[-1].split(",")[-1] in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- for real


def test_the_guard_ends_what_a_killed_benchmark_leaves() -> None:
    sleeping = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        for _ in range(2)
    ]
    left, ended = sleeping
    try:
        lines = f"+{left.pid}\n+{ended.pid}\n-{ended.pid}\n"
        subprocess.run([sys.executable, guard.__file__], input=lines, text=True, check=True, timeout=30)
        assert left.wait(30) == -signal.SIGKILL
        assert ended.poll() is None
    finally:
        for each in sleeping:
            each.kill()
            each.wait()


@pytest.mark.long("app", "benchmarks", "tests/benchmarks")
def test_one_row_is_measured_and_reported(tmp_path: Path) -> None:
    require("wrk")
    require("taskset")
    try:
        cores = pick_cores()
    except BenchmarkError as error:
        pytest.skip(str(error))
    manifest = write_number_bundle(tmp_path / "bundle")
    rows = np.array([[each.values[name] for name in IRIS_FEATURES] for each in manifest.examples])
    subject = Subject(manifest, tmp_path / "bundle", rows.astype(np.float64))
    said: list[str] = []

    measure(Bench(cores, rounds=1, seconds=1, say=said.append), ["one-row"], tmp_path, {FOREST: subject})

    (by_json, by_protocol) = read(tmp_path).parts["one-row"].comparisons
    for each in (by_json, by_protocol):
        assert each.base == "bare server"
        assert all(figures.per_second > 0 for _, figures in each.all_figures())
    assert f"| {FOREST} |" in (tmp_path / "serving.md").read_text()
    assert "bare server" in (tmp_path / "serving.svg").read_text()
    assert len(said) == 3
