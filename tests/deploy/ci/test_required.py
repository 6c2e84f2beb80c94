from __future__ import annotations

import json
import subprocess
import sys

import pytest

from deploy.ci import required
from deploy.errors import DeployError
from tests.e2e.clone import ROOT


def run(needs: object, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "deploy.ci.required", *arguments],
        cwd=ROOT,
        env={"NEEDS": json.dumps(needs)},
        capture_output=True,
        text=True,
        check=False,
    )


def needs(**results: str) -> dict[str, object]:
    return {job: {"result": result, "outputs": {}} for job, result in results.items()}


def test_passes_when_all_passed_and_needs_no_package() -> None:
    done = run(needs(check="success", test="success"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "check: success\ntest: success\n"


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_fails_when_one_did_not_and_names_it(result: str) -> None:
    done = run(needs(check="success", test=result))
    assert done.returncode == 1
    assert done.stderr == f"error: test: {result}\n"


def test_a_job_that_may_be_skipped_may_not_fail() -> None:
    assert required.judge({"fork": "skipped"}, ["fork"], []) == []
    assert required.judge({"fork": "failure"}, ["fork"], []) == ["fork: failure"]
    assert required.judge({"fork": "cancelled"}, ["fork"], []) == ["fork: cancelled"]


def test_one_of_several_has_to_have_passed() -> None:
    skipped = {"reproduce": "skipped", "fork": "skipped"}
    assert required.judge(skipped, skipped, ["reproduce", "fork"]) == ["none of reproduce, fork has passed"]
    assert required.judge({**skipped, "fork": "success"}, skipped, ["reproduce", "fork"]) == []


def decided(jobs: object, **results: str) -> dict[str, object]:
    return {
        **needs(touched="success", **results),
        "touched": {"result": "success", "outputs": {"jobs": json.dumps(jobs)}},
    }


GATE = ("--decided-by", "touched", "--one-of", "image", "image-untrusted")


@pytest.mark.parametrize(
    ("jobs", "results", "said"),
    [
        (["check"], {"check": "success", "test": "skipped", "image": "skipped"}, ""),
        (["check"], {"check": "success", "test": "failure", "image": "skipped"}, "test: failure"),
        (["check", "test"], {"check": "success", "test": "skipped", "image": "skipped"}, "test: skipped"),
        (["check", "image"], {"check": "success", "test": "skipped", "image": "success"}, ""),
        (["check", "image"], {"check": "success", "test": "skipped", "image": "skipped"}, "none of image, image-untrusted has passed"),
        (["check", "tset"], {"check": "success", "test": "success", "image": "skipped"}, "names no jobs"),
        ([], {"check": "success", "test": "success", "image": "skipped"}, "names no jobs"),
        ("check", {"check": "success", "test": "success", "image": "skipped"}, "names no jobs"),
    ],
)  # fmt: skip
def test_jobs_are_skipped_only_where_another_job_decided_it(
    jobs: object, results: dict[str, str], said: str
) -> None:
    others = {"image-untrusted": "skipped", **results}
    done = run(decided(jobs, **others), *GATE)
    assert (done.returncode == 0) is (said == ""), done.stderr
    assert said in done.stderr


def test_one_of_the_two_may_pass_in_place_of_the_other() -> None:
    results = {"check": "success", "image": "skipped", "image-untrusted": "success"}
    assert run(decided(["check", "image"], **results), *GATE).returncode == 0
    assert run(decided(["check", "image"], **{**results, "image": "failure"}), *GATE).returncode == 1


@pytest.mark.parametrize("result", ["failure", "skipped", "cancelled"])
def test_without_a_decision_every_job_must_have_passed(result: str) -> None:
    results = {"check": "success", "test": "skipped", "image": "success", "image-untrusted": "skipped"}
    done = run(needs(touched=result, **results), *GATE)
    assert done.returncode == 1
    assert f"touched: {result}" in done.stderr
    assert "test: skipped" in done.stderr


def test_a_job_that_is_not_there_is_no_excuse() -> None:
    assert required.judge({"check": "success"}, ["frok"], []) == ["no job is called frok"]


@pytest.mark.parametrize("text", ["", "null", "[]", '{"check": {}}', "{}", "no"])
def test_anything_else_than_results_fails(text: str) -> None:
    with pytest.raises(DeployError, match="NEEDS"):
        required.read(text)
