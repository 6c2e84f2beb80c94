"""Entities instead of features: what is looked up, what counts as missing, and what a bad store can do to the service."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.contract import read_bundle
from app.fastpath import INLINE_BYTES
from app.featurestore import MAX_ENTITIES, FeatureStore, check
from app.settings import Settings, SettingsError, read_settings
from tests.app.conftest import Serve
from tests.app.processes import running
from tests.app.test_metrics import parse, value
from tests.bundles import mixed_row, number_row
from tests.fake_feast import FakeFeast, fake_feast

FLOWERS = {1: (5.1, 3.5, 1.4, 0.2), 2: (6.7, 3.0, 5.2, 2.3), 3: (5.9, 3.0, 4.2, 1.5)}
ROWS = {
    key: {f"flowers__{name}": number for name, number in number_row(values).values.items()}
    for key, values in FLOWERS.items()
}
PLANTS: dict[Any, dict[str, Any]] = {
    "a": {
        "plants__age": 3.0,
        "plants__soil type": "clay",
        "plants__Höhe (cm)": 4.9,
        "plants__sown": 1714566600,
    },
    "b": {"plants__age": 7.9, "plants__soil type": None, "plants__Höhe (cm)": None, "plants__sown": -(2**63)},
    "c": {"plants__age": None, "plants__soil type": "sand", "plants__Höhe (cm)": 4.9, "plants__sown": None},
}
OPTIONS = {
    "feature_store_service": "flowers",
    "feature_store_keys": {"id": "int"},
    "feature_store_timeout": 5,
}


@pytest.fixture
def feast() -> Iterator[FakeFeast]:
    with fake_feast({key: dict(row) for key, row in ROWS.items()}) as server:
        yield server


@pytest.fixture
def flowers(number_model: Path, serve: Serve, feast: FakeFeast) -> TestClient:
    return serve(number_model, feature_store=feast.url, **OPTIONS)


@pytest.fixture
def plants(mixed_model: Path, serve: Serve) -> Iterator[TestClient]:
    with fake_feast(PLANTS) as server:
        yield serve(
            mixed_model, feature_store=server.url, **OPTIONS | {"feature_store_keys": {"id": "string"}}
        )


def reason(answer: Any) -> str:
    text: str = answer.json()["error"]
    return text


def test_an_entity_is_answered_like_its_features(flowers: TestClient, feast: FakeFeast) -> None:
    for key, numbers in FLOWERS.items():
        row = number_row(numbers)
        by_entity = flowers.post("/predict", json={"entity": {"id": key}})
        assert by_entity.status_code == 200, by_entity.text
        assert by_entity.content == flowers.post("/predict", json=row.values).content
        assert by_entity.json()["label"] == row.label
    assert feast.asked[0] == {
        "feature_service": "flowers",
        "entities": {"id": [1]},
        "full_feature_names": True,
    }


def test_many_entities_are_one_question_beside_plain_rows(flowers: TestClient, feast: FakeFeast) -> None:
    plain = number_row(FLOWERS[2]).values
    given = [{"entity": {"id": 1}}, plain, {"entity": {"id": 3}}, {"entity": {"id": 1}}]
    answers = flowers.post("/predict", json={"instances": given}).json()["predictions"]
    assert [each["label"] for each in answers] == [number_row(FLOWERS[key]).label for key in (1, 2, 3, 1)]
    assert [each["entities"] for each in feast.asked] == [{"id": [1, 3]}]


def test_features_beside_the_entity_count(flowers: TestClient, feast: FakeFeast) -> None:
    other = dict(number_row(FLOWERS[2]).values)
    given = {"entity": {"id": 1}, "petal_length": other["petal_length"], "petal_width": other["petal_width"]}
    expected = number_row(FLOWERS[1]).values | {name: other[name] for name in ("petal_length", "petal_width")}
    answered = flowers.post("/predict", json=given)
    assert answered.content == flowers.post("/predict", json=expected).content
    # All are there, so nothing is asked.
    asked = len(feast.asked)
    assert flowers.post("/predict", json={"entity": {"id": 77}, **other}).status_code == 200
    assert len(feast.asked) == asked
    wrong = flowers.post("/predict", json={"entity": {"id": 1}, "petal_width": 1e9})
    assert (wrong.status_code, reason(wrong)) == (422, "petal_width: must be at most 5 cm")


def test_a_missing_value_is_imputed_or_named(plants: TestClient) -> None:
    full = mixed_row(4.9, 3.0, "clay", "2024-05-01T12:30:00+00:00")
    assert plants.post("/predict", json={"entity": {"id": "a"}}).json()["label"] == full.label
    bare = plants.post("/predict", json={"entity": {"id": "b"}})
    assert bare.content == plants.post("/predict", json={"age": 7.9}).content
    for key in ("c", "nobody"):
        refused = plants.post("/predict", json={"entity": {"id": key}})
        assert refused.status_code == 422
        assert reason(refused) == "age: is required, and the feature store has no value for this entity"
    several = plants.post("/predict", json={"instances": [{"entity": {"id": "a"}}, {"entity": {"id": "c"}}]})
    assert reason(several).startswith("instances.1.age: is required")
    assert plants.post("/predict", json={"entity": {"id": "nobody"}, "age": 3}).status_code == 200
    text = plants.get("/metrics").text
    found = parse(text)
    assert value(found, "feature_store_values_total", feature="age", outcome="found") == 3
    assert value(found, "feature_store_values_total", feature="age", outcome="not_found") == 3
    assert value(found, "feature_store_requests_total", outcome="ok") == 6
    assert value(found, "model_rejected_fields_total", field="age", reason="missing_field") == 3


def test_an_old_value_is_missing_where_its_view_has_an_age(number_model: Path, serve: Serve) -> None:
    old = {"flowers__petal_width": "2026-01-01T00:00:00Z"}
    with fake_feast(ROWS, times=old) as feast:
        for age, status in (({}, 200), ({"other": 60}, 200), ({"flowers": 60}, 422)):
            client = serve(number_model, feature_store=feast.url, feature_store_max_age=age, **OPTIONS)
            answer = client.post("/predict", json={"entity": {"id": 1}})
            assert answer.status_code == status, answer.text
        assert reason(answer) == "petal_width: is required, and the value of the feature store is too old"


def test_full_names_may_be_the_models_names(tmp_path: Path, serve: Serve, number_model: Path) -> None:
    """The service matches `view__feature` as such, and by the feature alone."""
    with fake_feast({1: ROWS[1] | {"weather__petal_width": 0.3}}) as feast:
        client = serve(number_model, feature_store=feast.url, **OPTIONS)
        refused = client.post("/predict", json={"entity": {"id": 1}})
        assert refused.status_code == 503


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        ({}, "entity.id: is required"),
        ({"id": "1"}, "entity.id: must be a whole number of at most 64 bits"),
        ({"id": 1.0}, "entity.id: must be a whole number of at most 64 bits"),
        ({"id": True}, "entity.id: must be a whole number of at most 64 bits"),
        ({"id": None}, "entity.id: must be a whole number of at most 64 bits"),
        ({"id": 2**63}, "entity.id: must be a whole number of at most 64 bits"),
        ({"id": 1, "x": 2}, "entity.x: is unknown: an entity has id"),
        (7, "entity: must be an object with id"),
        (None, "entity: must be an object with id"),
        ([1], "entity: must be an object with id"),
    ],
)
def test_a_wrong_key_is_named(flowers: TestClient, feast: FakeFeast, entity: object, expected: str) -> None:
    answer = flowers.post("/predict", json={"entity": entity})
    assert (answer.status_code, reason(answer).partition(" (and")[0]) == (422, expected)
    nested = flowers.post("/predict", json={"instances": [{"entity": entity}]})
    assert (nested.status_code, reason(nested).partition(" (and")[0]) == (422, f"instances.0.{expected}")
    assert feast.asked == []


@pytest.mark.parametrize("unknown_fields", ["reject", "ignore"])
@pytest.mark.parametrize(
    "given",
    [
        {"entity": {"id": 1}},
        {"entity": 1, "age": 3},
        {"instances": [{"age": 3}, {"age": 3, "entity": {"id": 1}}]},
        {"age": 3, "\\u0065ntity": {"id": 1}},
    ],
)
def test_without_a_store_an_entity_is_refused(
    mixed_model: Path, serve: Serve, unknown_fields: str, given: dict[str, Any]
) -> None:
    """Also where unknown fields are ignored: the features it stands for would be taken for missing."""
    body = json.dumps(given).replace("\\\\u", "\\u")
    answer = serve(mixed_model, unknown_fields=unknown_fields).post("/predict", content=body)
    assert answer.status_code == 422
    assert "entity: is unknown: an instance may have it if the service has a feature store" in answer.text


@pytest.mark.parametrize("unknown_fields", ["reject", "ignore"])
def test_the_key_is_found_however_it_is_written(
    number_model: Path, serve: Serve, feast: FakeFeast, unknown_fields: str
) -> None:
    client = serve(number_model, feature_store=feast.url, unknown_fields=unknown_fields, **OPTIONS)
    expected = client.post("/predict", json=number_row(FLOWERS[1]).values).content
    for body in (b' {"\\u0065ntity" : {"id":1}}', b'{"sepal_width": 3.5, "entity":{"id":1}}'):
        assert client.post("/predict", content=body).content == expected
    zipped = gzip.compress(b'{"entity":{"id":1}}')
    answer = client.post("/predict", content=zipped, headers={"content-encoding": "gzip"})
    assert answer.content == expected


def test_it_belongs_into_an_instance(flowers: TestClient, feast: FakeFeast) -> None:
    columns = {"columns": {name: [number] for name, number in number_row(FLOWERS[1]).values.items()}}
    for body in (
        columns | {"entity": {"id": 1}},
        {"instances": [number_row(FLOWERS[1]).values], "entity": {"id": 1}},
    ):
        assert flowers.post("/predict", json=body).status_code == 422
    assert feast.asked == []


def test_many_rows_are_answered_by_the_process_or_thread(flowers: TestClient) -> None:
    given = {"instances": [{"entity": {"id": 1}}] * 300}
    assert len(json.dumps(given)) > INLINE_BYTES
    assert len(flowers.post("/predict", json=given).json()["predictions"]) == 300
    given = {"instances": [{"entity": {"id": 1}}] * (MAX_ENTITIES + 1)}
    refused = flowers.post("/predict", json=given)
    assert (refused.status_code, reason(refused)) == (
        413,
        f"{MAX_ENTITIES + 1} entities are too many: send at most {MAX_ENTITIES} in a request",
    )


@pytest.mark.parametrize("how", ["hangs", "drips", "closes", "short", "no HTTP"])
def test_a_bad_store_costs_its_requests_a_503(
    number_model: Path, serve: Serve, feast: FakeFeast, how: str
) -> None:
    client = serve(number_model, feature_store=feast.url, **OPTIONS | {"feature_store_timeout": 0.3})
    feast.how = how
    started = time.perf_counter()
    answer = client.post("/predict", json={"entity": {"id": 1}})
    assert time.perf_counter() - started < 1.5
    assert (answer.status_code, answer.json()["code"]) == (503, "feature_store")
    assert answer.headers["retry-after"] == "1"
    assert client.post("/predict", json=number_row(FLOWERS[1]).values).status_code == 200
    found = parse(client.get("/metrics").text)
    outcome = "timeout" if how in ("hangs", "drips") else "failed"
    assert value(found, "feature_store_requests_total", outcome=outcome) == 1
    assert value(found, "model_rejected_total", reason="feature_store") == 1
    feast.how = "well"
    assert client.post("/predict", json={"entity": {"id": 1}}).status_code == 200


@pytest.mark.parametrize("how", ["chunked", "closes after"])
def test_other_ways_to_send_an_answer(flowers: TestClient, feast: FakeFeast, how: str) -> None:
    feast.how = how
    for _ in range(3):
        assert flowers.post("/predict", json={"entity": {"id": 1}}).status_code == 200


@pytest.mark.parametrize("status", [204, 301, 404, 422, 500])
def test_another_status_is_a_503(flowers: TestClient, feast: FakeFeast, status: int) -> None:
    feast.status, feast.body = status, b"" if status == 204 else b'"no"'
    assert flowers.post("/predict", json={"entity": {"id": 1}}).status_code == 503


def test_nothing_listens(number_model: Path, serve: Serve) -> None:
    for url in ("http://127.0.0.1:1", "http://name.invalid:6566", "https://127.0.0.1:1/path"):
        client = serve(number_model, feature_store=url, **OPTIONS)
        assert client.post("/predict", json={"entity": {"id": 1}}).status_code == 503, url


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
RESULT = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("values", "statuses", "event_timestamps"), JSON | st.lists(JSON, min_size=1, max_size=1)
    ),
)
NAMES = st.lists(st.sampled_from(["id", *ROWS[1]]) | st.text(max_size=9), max_size=6)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": JSON | st.fixed_dictionaries({"feature_names": NAMES | JSON}),
        "results": st.lists(RESULT | JSON, max_size=6) | JSON,
    },
)


def test_no_answer_of_the_store_breaks_the_service(number_model: Path, serve: Serve) -> None:
    with fake_feast(ROWS) as feast:
        client = serve(
            number_model, feature_store=feast.url, **OPTIONS | {"feature_store_max_age": {"flowers": 60}}
        )

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(ANSWERS | JSON)
        def check_answer(answer: object) -> None:
            feast.body = json.dumps(answer).encode()
            assert client.post("/predict", json={"entity": {"id": 1}}).status_code in {200, 422, 503}

        check_answer()

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(JSON, st.sampled_from(["PRESENT", "NOT_FOUND", ""]), JSON)
        def check_value(found: object, status: str, stamp: object) -> None:
            names = list(ROWS[1])
            result = {"values": [found], "statuses": [status], "event_timestamps": [stamp]}
            feast.body = json.dumps(
                {"metadata": {"feature_names": names}, "results": [result] * len(names)}
            ).encode()
            assert client.post("/predict", json={"entity": {"id": 1}}).status_code in {200, 422, 503}

        check_value()


def test_no_request_breaks_the_service(number_model: Path, serve: Serve) -> None:
    with fake_feast(ROWS) as feast:
        client = serve(number_model, feature_store=feast.url, **OPTIONS)
        instance = (
            st.fixed_dictionaries({"entity": JSON | st.just({"id": 1})}, optional={"petal_width": JSON})
            | JSON
        )

        @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            instance
            | st.fixed_dictionaries(
                {"instances": st.lists(instance, max_size=3) | JSON}, optional={"entity": JSON}
            )
        )
        def check_body(body: object) -> None:
            answer = client.post("/predict", content=json.dumps(body))
            assert answer.status_code in {200, 422}, answer.text

        check_body()


def test_connections_are_kept_and_bounded(number_model: Path, feast: FakeFeast) -> None:
    from prometheus_client import CollectorRegistry

    options = OPTIONS | {"feature_store_connections": 3}
    store = FeatureStore(
        Settings(model_dir=number_model, feature_store=feast.url, **options),  # type: ignore[arg-type]
        read_bundle(number_model).manifest,
        CollectorRegistry(),
    )

    async def ask() -> None:
        for _ in range(3):
            await asyncio.gather(*(store.complete(b'{"entity":{"id":1}}') for _ in range(20)))

    asyncio.run(ask())
    assert len(feast.asked) == 60
    assert feast.connections == 3


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"": "feast:6566"}, "it must be the address of Feast's feature server"),
        ({"": "ftp://feast"}, "it must be the address of Feast's feature server"),
        ({"": "http://a:b@feast"}, "it must be the address of Feast's feature server"),
        ({"": "http://feast:99999"}, "it must be the address of Feast's feature server"),
        ({"": "http://feast", "_KEYS": ""}, "ESPALIER_FEATURE_STORE_KEYS is not set"),
        ({"": "http://feast", "_KEYS": "id"}, "it must be names with a type, int or string"),
        ({"": "http://feast", "_KEYS": "id:float"}, "it must be names with a type, int or string"),
        ({"": "http://feast", "_SERVICE": ""}, "ESPALIER_FEATURE_STORE_SERVICE is not set"),
        ({"": "http://feast", "_TIMEOUT": "0"}, "should be greater than 0"),
        ({"": "http://feast", "_MAX_AGE": "trips=soon"}, "it must be views with whole seconds"),
    ],
)
def test_a_wrong_setting_is_one_line(
    number_model: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, text in ({"_KEYS": "id:int", "_SERVICE": "flowers"} | variables).items():
        monkeypatch.setenv(f"ESPALIER_FEATURE_STORE{name}", text)
    with pytest.raises(SettingsError) as raised:
        check(read_settings(), read_bundle(number_model).manifest)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_FEATURE_STORE_KEYS", "driver_id:int, the:region:string")
    monkeypatch.setenv("ESPALIER_FEATURE_STORE_MAX_AGE", "trips=172800,profile=60")
    found = read_settings()
    assert found.feature_store_keys == {"driver_id": "int", "the:region": "string"}
    assert found.feature_store_max_age == {"trips": 172800, "profile": 60}


def test_the_document_has_the_entity(flowers: TestClient, numbers: TestClient) -> None:
    schemas = flowers.get("/openapi.json").json()["components"]["schemas"]
    entity = schemas["Entity"]
    assert (entity["required"], entity["additionalProperties"]) == (["id"], False)
    assert schemas["InstanceOfEntity"]["required"] == ["entity"] or "InstanceOfEntityToExplain" in schemas
    assert "Entity" not in numbers.get("/openapi.json").json()["components"]["schemas"]
    assert "feature_store" not in numbers.get("/metrics").text.replace('reason="feature_store"', "")


def test_the_prediction_log_has_what_was_looked_up(
    number_model: Path, serve: Serve, feast: FakeFeast, tmp_path: Path
) -> None:
    client = serve(number_model, feature_store=feast.url, prediction_log=str(tmp_path), **OPTIONS)
    assert client.post("/predict", json={"entity": {"id": 2}, "petal_width": 2.1}).status_code == 200
    client.app.state.prediction_log.close(5)  # type: ignore[attr-defined]
    (file,) = tmp_path.rglob("*.jsonl")
    line = json.loads(file.read_text())
    assert line["features"] == number_row(FLOWERS[2]).values | {"petal_width": 2.1}


@pytest.mark.slow
def test_a_store_that_hangs_does_not_delay_other_requests(number_model: Path, feast: FakeFeast) -> None:
    import httpx

    feast.how = "hangs"
    options = {
        "feature_store": feast.url,
        "feature_store_service": "flowers",
        "feature_store_keys": "id:int",
        "feature_store_timeout": 0.5,
    }
    with running(number_model, **options) as service, httpx.Client(base_url=service.url) as client:
        answers: list[int] = []

        def ask() -> None:
            answers.append(httpx.post(f"{service.url}/predict", json={"entity": {"id": 1}}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for each in threads:
            each.start()
        times = []
        while any(each.is_alive() for each in threads):
            started = time.perf_counter()
            assert client.post("/predict", json=number_row(FLOWERS[1]).values).status_code == 200
            times.append(time.perf_counter() - started)
            time.sleep(0.01)
        assert answers == [503] * 30
        assert sorted(times)[len(times) // 2] < 0.1
        feast.how = "well"
        answer = client.post("/predict", json={"entity": {"id": 1}})
        assert answer.status_code == 200, answer.text
