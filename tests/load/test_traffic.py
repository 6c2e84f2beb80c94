"""Good requests are answered, bad ones refused, and an answer that is wrong is noticed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from app.contract import Decision, Manifest, read_bundle
from app.main import create_app
from app.settings import Settings
from tests.bundles import write_harvest_bundle, write_mixed_bundle, write_number_bundle, write_value_bundle
from tests.load.traffic import MAX_BATCH_BYTES, Request, Traffic

with warnings.catch_warnings():
    # Starlette wants another HTTP library for its test client; this one is what everything else here uses.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

WRITERS: dict[str, Callable[[Path], Manifest]] = {
    "numbers": write_number_bundle,
    "mixed": write_mixed_bundle,
    "values": write_value_bundle,
    "harvests": write_harvest_bundle,
}


class Served:
    """A bundle with its service and the traffic for it."""

    def __init__(self, write: Callable[[Path], Manifest], directory: Path) -> None:
        write(directory)
        bundle = read_bundle(directory)
        self.client = TestClient(create_app(Settings(), bundle))
        self.traffic = Traffic(bundle.manifest, Random(5))

    def send(self, request: Request) -> tuple[int, bytes]:
        headers = {"Content-Type": request.content_type}
        answer = self.client.post(request.path, content=request.body.encode(), headers=headers)
        return answer.status_code, answer.content

    def answer(self, request: Request) -> dict[str, Any]:
        content: dict[str, Any] = orjson.loads(self.send(request)[1])
        return content

    def fault(self, request: Request, answer: object, status: int | None = None) -> str | None:
        return self.traffic.fault(request, status or request.status, orjson.dumps(answer))


@pytest.fixture(scope="module", params=WRITERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(WRITERS[request.param], tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("make", [Traffic.instance, Traffic.instances, Traffic.columns, Traffic.tensors])
def test_good_requests_get_answers_without_fault(served: Served, make: Callable[[Traffic], Request]) -> None:
    for _ in range(10):
        request = make(served.traffic)
        assert served.traffic.fault(request, *served.send(request)) is None


def test_bad_requests_of_each_kind_get_the_refusal_they_need(served: Served) -> None:
    requests = served.traffic.bad_of_each_kind()

    faults = {each.about: served.traffic.fault(each, *served.send(each)) for each in requests}

    assert len(faults) >= 9
    assert {about: fault for about, fault in faults.items() if fault} == {}


def test_a_schema_decides_which_mistakes_are_possible(tmp_path: Path) -> None:
    manifests = {
        "reject": write_number_bundle(tmp_path / "reject"),
        "accept": write_number_bundle(tmp_path / "accept", out_of_range="accept"),
        "mixed": write_mixed_bundle(tmp_path / "mixed"),
    }
    kinds = {
        name: {each.about for each in Traffic(manifest, Random(1)).bad_of_each_kind()}
        for name, manifest in manifests.items()
    }

    assert kinds["reject"] - kinds["accept"] == {"out of range"}
    assert kinds["mixed"] - kinds["reject"] == {"unknown category"}


def test_a_bad_request_that_is_answered_is_a_fault(served: Served) -> None:
    good = served.answer(served.traffic.instance())

    for request in served.traffic.bad_of_each_kind():
        fault = served.fault(request, good, status=200)
        assert fault == f"{request.about}: 200 instead of {request.status}"


def test_a_refusal_that_names_another_field_is_a_fault(served: Served) -> None:
    request = next(each for each in served.traffic.bad_of_each_kind() if each.about == "wrong type")
    refusal = {"error": "no", "code": "invalid_input", "details": [{"field": "other", "reason": "no"}]}

    assert served.fault(request, refusal) == "wrong type: a refusal that does not name the field"


def test_the_reason_of_an_unexpected_refusal_is_kept_without_its_numbers(served: Served) -> None:
    request = served.traffic.instances()

    fault = served.fault(request, {"error": "instances.17.age: must be a number"}, status=422)

    assert fault == "batch: 422 instead of 200: instances.#.age: must be a number"


def test_wrong_predictions_versions_and_shapes_are_faults(served: Served) -> None:
    request = served.traffic.instance()
    good = served.answer(request)
    wrong = {
        **wrong_predictions(served.traffic.manifest, good),
        "another model version than at the start": good | {"model": {"version": "0" * 12}},
        "the answer has another shape (KeyError)": {},
        "the answer has another shape (TypeError)": [],
    }

    for fault, answer in wrong.items():
        assert served.fault(request, answer) == f"one row: {fault}"
    assert served.traffic.fault(request, 200, b"<html>") == "one row: the answer is not JSON"


def wrong_predictions(manifest: Manifest, good: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if manifest.task == "regression":
        low, high = good["interval"]
        fault = "an interval that is not the value plus and minus the margin"
        return {fault: good | {"interval": [low, high + 0.1]}}
    first, second, *rest = manifest.classes
    certain = {first: 1.0, second: 0.0} | dict.fromkeys(rest, 0.0)
    unsure = dict.fromkeys(manifest.classes, 0.9)
    return {
        "probabilities that do not add up to 1": good | {"probabilities": unsure},
        "a label that does not follow from the probabilities": good
        | {"label": second, "probabilities": certain},
    }


@pytest.mark.parametrize(
    ("decision", "right", "wrong"),
    [
        (None, [("no", 0.7), ("yes", 0.5), ("no", 0.5)], [("yes", 0.7)]),
        (Decision(positive="yes", threshold=0.2), [("yes", 0.7), ("no", 0.9), ("no", 0.8)], [("no", 0.7)]),
        (Decision(cost=((0, 1), (8, 0))), [("yes", 0.7), ("no", 0.9)], [("no", 0.8), ("yes", 0.9)]),
    ],
)
def test_a_label_follows_from_the_models_decision(
    tmp_path: Path, decision: Decision | None, right: list[tuple[str, float]], wrong: list[tuple[str, float]]
) -> None:
    """Pairs of a label and the probability of "no"."""
    manifest = write_mixed_bundle(tmp_path).model_copy(update={"decision": decision})
    traffic = Traffic(manifest, Random(1))
    request = traffic.instance()
    for (label, no), fault in [(each, False) for each in right] + [(each, True) for each in wrong]:
        prediction = {"label": label, "probabilities": {"no": no, "yes": 1 - no}}
        answer = prediction | {"model": {"version": manifest.version}}
        found = traffic.fault(request, 200, orjson.dumps(answer))
        assert found == ("one row: a label that does not follow from the probabilities" if fault else None)


@pytest.mark.parametrize("make", [Traffic.instances, Traffic.columns, Traffic.tensors])
def test_an_answer_with_too_few_rows_is_a_fault(served: Served, make: Callable[[Traffic], Request]) -> None:
    asked, other = make(served.traffic), make(served.traffic)
    while other.rows == asked.rows:
        other = make(served.traffic)

    fault = served.fault(asked, served.answer(other))

    assert fault is not None
    assert fault.endswith("not as many predictions as rows")


def test_batches_of_wide_rows_stay_under_the_limit_for_bodies(tmp_path: Path) -> None:
    manifest = write_number_bundle(tmp_path)
    first = manifest.features[0]
    wide = tuple(first.model_copy(update={"name": f"feature {index}"}) for index in range(2000))

    traffic = Traffic(manifest.model_copy(update={"features": wide}), Random(1))

    for _ in range(5):
        assert len(traffic.instances().body) <= MAX_BATCH_BYTES * 1.1
        assert len(traffic.columns().body) <= MAX_BATCH_BYTES * 1.1
