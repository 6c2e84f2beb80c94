"""The documentation, and the whole API against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from tests.app.conftest import Serve
from tests.bundles import number_row
from tests.fake_feast import fake_feast
from tests.tools import examples

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def document(mixed: TestClient) -> dict[str, Any]:
    content: dict[str, Any] = mixed.get("/openapi.json").json()
    return content


def test_features_are_described_with_unit_range_and_choices(document: dict[str, Any]) -> None:
    instance = document["components"]["schemas"]["Instance"]
    assert instance["required"] == ["age"]
    assert instance["additionalProperties"] is False
    age = instance["properties"]["age"]
    assert (age["minimum"], age["maximum"], age["x-unit"]) == (0, 100, "weeks")
    assert age["description"] == "Weeks since sowing: 0 to 100 weeks, typically 8."
    soil = instance["properties"]["soil type"]
    assert soil["anyOf"][0]["enum"] == ["clay", "löss & loam", "sand"]
    assert soil["anyOf"][1] == {"type": "null"}
    sown = instance["properties"]["sown"]
    assert (sown["anyOf"][0]["type"], sown["anyOf"][0]["format"]) == ("string", "date-time")
    assert sown["description"] == (
        "When the seed was sown: in ISO 8601, Europe/Berlin if without an offset; 2023-03-01T08:00:00+01:00 to "
        "2024-09-30T18:30:00+02:00 in training. May be left out or null."
    )


def test_the_examples_work(mixed: TestClient, document: dict[str, Any]) -> None:
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert set(content["examples"]) == {"instance", "instances", "columns"}
    for example in content["examples"].values():
        assert mixed.post("/predict", json=example["value"]).status_code == 200


def test_errors_are_documented_in_their_one_shape(document: dict[str, Any]) -> None:
    responses = document["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "408", "413", "415", "422", "503"}
    for status in ("408", "413", "415", "422", "503"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}


def test_a_class_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Prediction"]["required"] == ["label", "probabilities", "model"]
    assert schemas["RequestedOutput"]["properties"]["name"]["enum"] == ["label", "probabilities"]
    assert document["info"]["description"].startswith("Predicts **ripe** (no, yes) from 4 features")


def test_a_value_is_described_with_its_unit_and_its_interval(harvest_model: Path, serve: Serve) -> None:
    document = serve(harvest_model).get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    prediction = schemas["Prediction"]
    assert prediction["required"] == ["value", "interval", "model"]
    value, interval = (prediction["properties"][name] for name in ("value", "interval"))
    assert (value["type"], value["x-unit"]) == ("number", "kg")
    assert value["description"] == "Fruit of a plant in a year"
    assert (interval["minItems"], interval["maxItems"]) == (2, 2)
    assert interval["description"] == "Low and high end of the 90 % prediction interval."
    assert schemas["PredictionColumns"]["required"] == ["values", "intervals", "model"]
    assert schemas["RequestedOutput"]["properties"]["name"]["enum"] == ["value", "interval"]
    about = document["info"]["description"]
    assert about.startswith("Predicts **harvest** in kg, with 90 % intervals, from 4 features with ridge")
    assert not {"Probabilities", "ProbabilitiesByClass"} & set(schemas)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found: set[str] = set()

    def collect(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found.add(node["$ref"])
            for each in node.values():
                collect(each)
        elif isinstance(node, list):
            for each in node:
                collect(each)

    collect(document)
    assert {name.removeprefix("#/components/schemas/") for name in found} <= set(
        document["components"]["schemas"]
    )


def test_the_page_about_it_is_served(mixed: TestClient) -> None:
    answer = mixed.get("/docs")
    assert answer.status_code == 200
    assert '<html lang="en">' in answer.text
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    for name, media_type in (("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")):
        assert f'"docs/{name}"' in answer.text
        file = mixed.get(f"/docs/{name}")
        assert file.headers["content-type"].startswith(media_type)
        assert len(file.content) > 100_000
    for name in ("__init__.py", "..%2fmain.py", "%2e%2e/main.py", ""):
        assert mixed.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("prefix", ["/iris", "/models/iris"])
def test_a_prefix_is_answered_and_so_is_none(number_model: Path, serve: Serve, prefix: str) -> None:
    client = serve(number_model, root_path=prefix)
    row = number_row((5.1, 3.5, 1.4, 0.2))
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in row.values.items()
    ]
    for path in ("", prefix):
        for read in ("/", "/model", "/docs", "/docs/swagger-ui.css", "/health/ready", "/v2/models/iris"):
            assert client.get(path + read).status_code == 200, path + read
        assert client.post(f"{path}/predict", json=row.values).json()["label"] == row.label
        assert client.post(f"{path}/v2/models/iris/infer", json={"inputs": inputs}).status_code == 200
        assert client.get(f"{path}/openapi.json").json()["servers"] == [{"url": "."}]
        assert client.get(f"{path}/nothing").status_code == 404
    redirect = client.get(prefix, follow_redirects=False)
    assert (redirect.status_code, redirect.headers["location"]) == (307, "iris/")
    assert client.get(prefix).text == client.get("/").text
    for other in (
        f"{prefix}x",
        f"{prefix}//",
        f"/x{prefix}/model",
        f"{prefix}{prefix}/model",
        f"{prefix}/metrics",
    ):
        assert client.get(other).status_code == 404, other
    assert client.get("/metrics").status_code == 200
    assert client.post(prefix, json={}).status_code in {404, 405}


@pytest.mark.hypothesis
@pytest.mark.no_cover
@pytest.mark.long("app", "tests/app", "uv.lock")
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("bundle", ["number_model", "mixed_model", "value_model", "harvest_model"])
def test_the_api_does_what_its_document_says(
    bundle: str, mode: GenerationMode, request: pytest.FixtureRequest, serve: Serve
) -> None:
    """Every operation with inputs that fit its description, and with inputs that do not."""
    _follow_the_document(serve(request.getfixturevalue(bundle)).app, mode)


@pytest.mark.hypothesis
@pytest.mark.no_cover
@pytest.mark.long("app", "tests/app", "uv.lock")
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_api_with_a_feature_store_does_what_its_document_says(
    mixed_model: Path, mode: GenerationMode, serve: Serve
) -> None:
    """The store has every other entity, and of some of these the age, without which the model does not predict."""
    with fake_feast(_EveryOther(), key="id") as feast:
        settings = {"feature_store_service": "plants", "feature_store_keys": {"id": "int", "bed": "string"}}
        client = serve(mixed_model, feature_store=feast.url, feature_store_timeout=10, **settings)
        _follow_the_document(client.app, mode)


class _EveryOther(dict[Any, dict[str, Any]]):
    """Rows of a feature server for any entity."""

    def get(self, key: Any, default: Any = None) -> Any:
        return {"plants__age": 3.0 if key % 4 else None, "plants__soil type": "clay"} if key % 2 else default

    def values(self) -> Any:
        return [{"plants__age": 3.0, "plants__soil type": "clay"}]


def _follow_the_document(app: Any, mode: GenerationMode) -> None:
    api = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [each.ok() for each in api.get_all_operations() if isinstance(each, Ok)]
    assert len(operations) == 14
    for operation in operations:
        if mode.is_negative and not (operation.body or operation.path_parameters):
            # Without any input there is nothing to get wrong.
            continue

        @settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        check()
