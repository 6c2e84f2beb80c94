"""What each feature contributes to a prediction: on request, in every shape, and for nobody else."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.testclient import TestClient

from app import explanations, predictor
from app.contract import (
    EXPLANATION_FILE,
    MANIFEST_FILE,
    Bundle,
    BundleError,
    Manifest,
    read_bundle,
    write_bundle,
)
from app.main import Application
from tests.app.conftest import Serve
from tests.app.processes import running
from tests.app.wire import Line
from tests.bundles import (
    IRIS_BASE,
    IRIS_CLASSES,
    IRIS_FEATURES,
    contributions_of,
    number_row,
    write_number_bundle,
)

ROWS = ((5.1, 3.5, 1.4, 0.2), (6.0, 2.9, 4.5, 1.5), (6.9, 3.1, 5.4, 2.1))
VALUES = st.tuples(st.floats(1, 12), st.floats(1, 8), st.floats(0.1, 12), st.floats(0.1, 5))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("explained")
    write_number_bundle(directory, explained=True)
    return directory


@pytest.fixture(scope="module")
def explained(model: Path, serve: Serve) -> TestClient:
    return serve(model)


def instance(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(IRIS_FEATURES, values, strict=True))


def columns(rows: tuple[tuple[float, ...], ...]) -> dict[str, list[float]]:
    return {name: [row[index] for row in rows] for index, name in enumerate(IRIS_FEATURES)}


def ask(client: TestClient, body: Any, status: int = 200) -> dict[str, Any]:
    response = client.post("/predict", content=body if isinstance(body, str) else json.dumps(body))
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def expected(values: tuple[float, ...]) -> dict[str, Any]:
    label = number_row(values).label
    index = IRIS_CLASSES.index(label)
    return {
        "base": pytest.approx(IRIS_BASE[index]),
        "unit": "log-odds",
        "class": label,
        "contributions": {
            name: pytest.approx(value)
            for name, value in zip(IRIS_FEATURES, contributions_of(values)[:, index], strict=True)
        },
    }


@pytest.mark.parametrize("values", ROWS)
def test_an_instance_is_explained_if_it_asks(explained: TestClient, values: tuple[float, ...]) -> None:
    plain = ask(explained, instance(values))
    assert "explanation" not in plain
    assert ask(explained, instance(values) | {"explain": False}) == plain
    assert ask(explained, instance(values) | {"explain": True}) == plain | {"explanation": expected(values)}


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_base_and_contributions_are_the_score(explained: TestClient, values: tuple[float, ...]) -> None:
    answer = ask(explained, instance(values) | {"explain": True})
    explanation = answer["explanation"]
    score = explanation["base"] + sum(explanation["contributions"].values())
    scores = IRIS_BASE + contributions_of(values).sum(axis=0)
    probability = np.exp(score) / np.exp(scores).sum()
    assert probability == pytest.approx(answer["probabilities"][answer["label"]])


def test_the_three_shapes_agree(explained: TestClient) -> None:
    alone = [ask(explained, instance(each) | {"explain": True}) for each in ROWS]
    several = ask(explained, {"instances": list(map(instance, ROWS)), "explain": True})
    for one, each in zip(several["predictions"], alone, strict=True):
        assert (one["label"], one["explanation"]) == (each["label"], each["explanation"])
        assert one["probabilities"] == pytest.approx(each["probabilities"])
    whole = ask(explained, {"columns": columns(ROWS), "explain": True})["explanation"]
    assert whole["unit"] == "log-odds"
    for row, each in enumerate(alone):
        explanation = each["explanation"]
        assert whole["base"][row] == explanation["base"]
        assert whole["classes"][row] == explanation["class"]
        found = {name: whole["contributions"][name][row] for name in IRIS_FEATURES}
        assert found == pytest.approx(explanation["contributions"])


@pytest.mark.parametrize("shape", ["instance", "instances", "columns"])
def test_equivalent_json_is_explained_too(explained: TestClient, shape: str) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "instance": instance(ROWS[0]),
        "instances": {"instances": [instance(ROWS[0])]},
        "columns": {"columns": columns(ROWS[:1])},
    }
    content = shapes[shape]
    after = ask(explained, content | {"explain": True})
    assert ask(explained, {"explain": True} | content) == after
    assert (
        ask(explained, json.dumps(content | {"explain": True}).replace('"explain"', '"\\u0065xplain"'))
        == after
    )
    assert "explanation" in (after["predictions"][0] if shape == "instances" else after)


@pytest.mark.parametrize("value", [1, "true", None, [], {}])
@pytest.mark.parametrize(
    "content",
    [instance(ROWS[0]), {"instances": [instance(ROWS[0])]}, {"columns": columns(ROWS)}],
    ids=["instance", "instances", "columns"],
)
def test_the_key_is_true_or_false(explained: TestClient, content: dict[str, Any], value: Any) -> None:
    assert ask(explained, content | {"explain": value}, 422)["error"] == "explain: must be true or false"


def test_a_row_among_several_cannot_ask_alone(explained: TestClient) -> None:
    answer = ask(explained, {"instances": [instance(ROWS[0]) | {"explain": True}]}, 422)
    assert answer["error"].startswith("instances.0.explain: is unknown")


def test_a_misspelt_key_is_refused(explained: TestClient) -> None:
    assert ask(explained, instance(ROWS[0]) | {"explian": True}, 422)["error"].startswith(
        "explian: is unknown"
    )


def test_faults_are_named_as_without(explained: TestClient) -> None:
    for content in (
        instance((99, 3, 1, 1)),
        {"instances": [instance((99, 3, 1, 1))]},
        {"columns": columns(((99, 3, 1, 1),))},
    ):
        assert ask(explained, content | {"explain": True}, 422) == ask(explained, content, 422)


def test_the_key_is_seen_where_unknown_fields_are_ignored(model: Path, serve: Serve) -> None:
    client = serve(model, unknown_fields="ignore")
    assert "explanation" in ask(client, instance(ROWS[0]) | {"explain": True, "colour": "blue"})
    assert "explanation" not in ask(client, instance(ROWS[0]) | {"explain": False, "colour": "blue"})


def test_a_feature_may_have_the_name_of_the_key(tmp_path: Path, serve: Serve) -> None:
    names = ("explain", *IRIS_FEATURES[1:])
    write_number_bundle(tmp_path, explained=True, names=names)
    client = serve(tmp_path)
    row = dict(zip(names, ROWS[0], strict=True))
    assert "explanation" not in ask(client, row)
    answer = ask(client, {"instances": [row], "explain": True})
    assert list(answer["predictions"][0]["explanation"]["contributions"]) == list(names)
    lists = {name: [value] for name, value in row.items()}
    assert list(ask(client, {"columns": lists, "explain": True})["explanation"]["contributions"]) == list(
        names
    )


@pytest.mark.parametrize(
    "content",
    [instance(ROWS[0]), {"instances": [instance(ROWS[0])]}, {"columns": columns(ROWS)}],
    ids=["instance", "instances", "columns"],
)
def test_a_model_without_explanations_says_so(numbers: TestClient, content: dict[str, Any]) -> None:
    answer = ask(numbers, content | {"explain": True}, 422)
    assert answer["code"] == "not_explained"
    assert "trained with `explain: shap` in params.yaml" in answer["error"]
    assert ask(numbers, content | {"explain": False}) == ask(numbers, content)


def infer(client: TestClient, status: int = 200, **request: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [len(ROWS)], "datatype": "FP64", "data": values}
        for name, values in columns(ROWS).items()
    ]
    response = client.post("/v2/models/iris/infer", json={"inputs": inputs, **request})
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_tensors_explain_if_the_parameter_says_so(explained: TestClient) -> None:
    outputs = {each["name"]: each for each in infer(explained, parameters={"explain": True})["outputs"]}
    assert list(outputs) == ["label", "probabilities", "contributions", "base"]
    assert outputs["contributions"]["shape"] == [3, 4]
    assert outputs["base"]["shape"] == [3]
    found = np.reshape(outputs["contributions"]["data"], (3, 4))
    for row, values in enumerate(ROWS):
        assert outputs["base"]["data"][row] == expected(values)["base"]
        assert dict(zip(IRIS_FEATURES, found[row].tolist(), strict=True)) == expected(values)["contributions"]
    assert [each["name"] for each in infer(explained)["outputs"]] == ["label", "probabilities"]


def test_tensors_that_explain_may_be_requested_by_name(explained: TestClient) -> None:
    wanted = infer(explained, outputs=[{"name": "base"}, {"name": "label"}])
    assert [each["name"] for each in wanted["outputs"]] == ["base", "label"]
    both = infer(explained, outputs=[{"name": "base"}], parameters={"explain": True})
    assert [each["name"] for each in both["outputs"]] == ["base", "contributions"]


def test_tensors_that_explain_may_be_binary(explained: TestClient) -> None:
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": values}
        for name, values in columns(ROWS[:1]).items()
    ]
    request = {
        "inputs": inputs,
        "outputs": [{"name": "contributions"}],
        "parameters": {"explain": True, "binary_data_output": True},
    }
    response = explained.post("/v2/models/iris/infer", json=request)
    head = int(response.headers["Inference-Header-Content-Length"])
    values = np.frombuffer(response.content[head:], "<f8")
    assert dict(zip(IRIS_FEATURES, values[:4].tolist(), strict=True)) == expected(ROWS[0])["contributions"]
    assert values[4] == expected(ROWS[0])["base"]


def test_tensors_of_a_model_without_explanations_are_refused(numbers: TestClient) -> None:
    assert infer(numbers, 422, parameters={"explain": True})["code"] == "not_explained"
    assert "explain: must be true or false" in infer(numbers, 422, parameters={"explain": 1})["error"]


def test_there_are_fewer_rows_than_would_take_too_long(
    model: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MOST_WORK", 2 * (model / EXPLANATION_FILE).stat().st_size)
    client = serve(model)
    answer = ask(client, {"instances": list(map(instance, ROWS)), "explain": True}, 413)
    assert answer["error"] == "3 rows: explaining them would take too long; send at most 2 rows"
    assert ask(client, {"columns": columns(ROWS), "explain": True}, 413)["error"] == answer["error"]
    assert infer(client, 413, parameters={"explain": True})["error"] == answer["error"]
    assert len(ask(client, {"columns": columns(ROWS)})["labels"]) == 3
    assert len(ask(client, {"instances": list(map(instance, ROWS[:2])), "explain": True})["predictions"]) == 2


def test_the_answer_has_the_size_limit_of_others(model: Path, serve: Serve) -> None:
    client = serve(model, max_answer_bytes=1024)
    rows = [instance(ROWS[0])] * 3
    assert ask(client, {"instances": rows})
    assert (
        "3 rows: values or answer would exceed 1024 bytes; send at most 2 rows"
        in ask(client, {"instances": rows, "explain": True}, 413)["error"]
    )


def test_the_file_is_loaded_when_it_is_needed(
    model: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    build = predictor.Explainer.__init__

    def note(self: Any, file: bytes, *arguments: Any, **options: Any) -> None:
        loaded.append(len(file))
        build(self, file, *arguments, **options)

    monkeypatch.setattr(predictor.Explainer, "__init__", note)
    client = serve(model)
    ask(client, instance(ROWS[0]))
    assert loaded == []
    for _ in range(2):
        ask(client, instance(ROWS[0]) | {"explain": True})
    assert loaded == [(model / EXPLANATION_FILE).stat().st_size]


def counted(client: TestClient) -> dict[str, float]:
    families = parse(client.get("/metrics").text)
    wanted = ("model_explained_rows_total", "model_predictions_total")
    found: dict[str, float] = {}
    for sample in (each for family in families for each in family.samples if each.name in wanted):
        found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_explained_rows_are_counted_beside_the_predictions(
    model: Path, numbers: TestClient, serve: Serve
) -> None:
    client = serve(model)
    ask(client, instance(ROWS[0]) | {"explain": True})
    ask(client, {"instances": list(map(instance, ROWS)), "explain": True})
    ask(client, instance(ROWS[0]))
    assert counted(client) == {"model_explained_rows_total": 4, "model_predictions_total": 5}
    assert "model_explained_rows_total" not in counted(numbers)


def test_values_for_which_the_model_has_no_answer_are_not_explained(tmp_path: Path, serve: Serve) -> None:
    write_number_bundle(tmp_path, explained=True, out_of_range="accept")
    client = serve(tmp_path)
    far = instance((1e308, 1e308, 1e308, 1.7e308))
    assert ask(client, far | {"explain": True}, 422) == ask(client, far, 422)
    # The sum of these contributions is too large for a float, and each is not.
    large = ask(client, instance((1.7e308, -1.7e308, 1e308, -1e307)) | {"explain": True})
    assert np.isfinite(list(large["explanation"]["contributions"].values())).all()


def test_the_documentation_has_the_key_where_it_works(explained: TestClient, numbers: TestClient) -> None:
    schemas = explained.get("/openapi.json").json()["components"]["schemas"]
    for name in ("InstanceToExplain", "Instances", "Columns"):
        assert schemas[name]["properties"]["explain"]["type"] == "boolean"
    assert set(schemas["Prediction"]["properties"]) == {"label", "probabilities", "explanation", "model"}
    others = numbers.get("/openapi.json").json()["components"]["schemas"]
    assert "InstanceToExplain" not in others
    for name in ("Instance", "Instances", "Columns"):
        assert "explain" not in others[name]["properties"]
    assert "explanation" not in others["Prediction"]["properties"]


def bundle_with(manifest: Manifest, bundle: Bundle, directory: Path) -> Path:
    write_bundle(bundle.model_copy(update={"manifest": manifest.sealed()}), directory)
    return directory


def test_a_bundle_is_read_with_its_explanation(model: Path, tmp_path: Path) -> None:
    bundle = read_bundle(model)
    assert bundle.explanation == (model / EXPLANATION_FILE).read_bytes()
    write_bundle(bundle, tmp_path)
    assert read_bundle(tmp_path) == bundle


def test_a_bundle_of_before_has_the_digest_that_it_had(number_model: Path) -> None:
    document = orjson.loads((number_model / MANIFEST_FILE).read_bytes())
    assert document.pop("explanation") is None
    old = Manifest.model_validate(document)
    assert old.computed_digest() == document["digest"]


@pytest.mark.parametrize("content", [None, b"", b"other"])
def test_an_explanation_that_is_not_the_bundles_is_refused(
    model: Path, tmp_path: Path, content: bytes | None
) -> None:
    write_bundle(read_bundle(model), tmp_path)
    if content is None:
        (tmp_path / EXPLANATION_FILE).unlink()
    else:
        (tmp_path / EXPLANATION_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=EXPLANATION_FILE):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"base": (0.0,)}, "the explanation must have 3"), ({"positive": "setosa"}, "names the positive one")],
)
def test_an_explanation_that_does_not_fit_the_classes_is_refused(
    model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    bundle = read_bundle(model)
    assert bundle.manifest.explanation is not None
    explanation = bundle.manifest.explanation.model_copy(update=changes)
    bundle_with(bundle.manifest.model_copy(update={"explanation": explanation}), bundle, tmp_path)
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path)


def test_other_connections_do_not_wait_for_an_explanation(
    explained: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in a pipeline its answer keeps its place."""
    app = cast(Application, explained.app)
    explain, released = app.state.service.explanations.explain_row, threading.Event()

    def wait(*given: Any) -> Any:
        assert released.wait(30)
        return explain(*given)

    monkeypatch.setattr(app.state.service.explanations, "explain_row", wait)
    bodies = [instance(row) for row in ROWS]
    bodies[1] |= {"explain": True}

    async def answers() -> bytes:
        line, other = Line(app), Line(app)
        line.send(b"".join(map(post, bodies)))
        other.send(post(bodies[0]))
        assert (await other.settle()).count(b"HTTP/1.1 200") == 1
        assert b"".join(line.transport.writes).count(b"HTTP/1.1 200") == 1
        released.set()
        return await line.settle()

    whole = asyncio.run(answers())

    parts = [part.partition(b"\r\n\r\n")[2] for part in whole.split(b"HTTP/1.1 200")[1:]]
    assert [json.loads(part)["label"] for part in parts] == [number_row(row).label for row in ROWS]
    assert ["explanation" in json.loads(part) for part in parts] == [False, True, False]


def test_every_way_to_ask_is_recognised(explained: TestClient) -> None:
    explanations = cast(Application, explained.app).state.service.explanations
    assert not explanations.are_asked_for(json.dumps(instance(ROWS[0])).encode())
    for name in ("explain", *(each.name for each in explanations.tensors)):
        assert explanations.are_asked_for(json.dumps({"parameters": {name: True}}).encode()), name


def post(document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.slow
def test_workers_serve_explanations_too(model: Path) -> None:
    content = json.dumps(instance(ROWS[0]) | {"explain": True}).encode()
    with running(model, workers=2) as service:
        request = urllib.request.Request(
            f"{service.url}/predict", content, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            assert json.loads(response.read())["explanation"] == expected(ROWS[0])
