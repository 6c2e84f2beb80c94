"""The application as a whole: routes, the page, readiness, and many clients at once."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from app.contract import BundleError, read_bundle
from app.fastpath import INLINE_BYTES
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Serve
from tests.bundles import IRIS_FEATURES, Row, number_row


def random_row(generator: random.Random) -> Row:
    return number_row(
        (generator.uniform(1, 12), generator.uniform(1, 8), generator.uniform(1, 12), generator.uniform(1, 5))
    )


def test_the_card_is_the_manifest(numbers: TestClient, number_model: Path) -> None:
    manifest = read_bundle(number_model).manifest
    assert numbers.get("/model").json() == manifest.model_dump(mode="json")


def test_answers_name_the_model(numbers: TestClient, number_model: Path) -> None:
    manifest = read_bundle(number_model).manifest
    answer = numbers.post("/predict", json=number_row((5, 3, 1, 1)).values).json()
    assert answer["model"] == {"name": manifest.name, "version": manifest.version}


def test_readiness_ends_with_draining_and_liveness_does_not(number_model: Path, serve: Serve) -> None:
    client = serve(number_model)
    ready = ["/health/ready", "/v2/health/ready", "/v2/models/iris/ready"]
    live = ["/health/live", "/v2/health/live"]
    assert {client.get(path).status_code for path in ready + live} == {200}
    client.app.state.draining = True  # type: ignore[attr-defined]
    assert {client.get(path).status_code for path in ready} == {503}
    assert {client.get(path).status_code for path in live} == {200}
    assert client.post("/predict", json=number_row((5, 3, 1, 1)).values).status_code == 200


def test_the_page_may_run_only_what_is_written_in_it(numbers: TestClient) -> None:
    answer = numbers.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[\w+/=]+'", policy)
    assert re.search(r"style-src 'sha256-[\w+/=]+'", policy)


def test_a_bad_bundle_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle"):
        create_app(Settings(model_dir=tmp_path))


@pytest.mark.slow
def test_clients_side_by_side_get_their_own_answers(number_model: Path) -> None:
    """Sixteen clients, small and large requests mixed, every answer known."""
    app = create_app(Settings(model_dir=number_model))

    async def client(number: int) -> None:
        generator = random.Random(number)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            for turn in range(25):
                if turn % 8 == 7:
                    await ask_many(http, [random_row(generator) for _ in range(400)])
                else:
                    await ask_one(http, random_row(generator))

    async def ask_one(http: httpx.AsyncClient, row: Row) -> None:
        answer = (await http.post("/predict", json=row.values)).json()
        assert answer["probabilities"] == pytest.approx(row.probabilities)

    async def ask_many(http: httpx.AsyncClient, rows: list[Row]) -> None:
        body: dict[str, Any] = {name: [row.values[name] for row in rows] for name in IRIS_FEATURES}
        response = await http.post("/predict", json={"columns": body})
        assert len(response.request.content) > INLINE_BYTES
        probabilities = response.json()["probabilities"]
        for index, row in enumerate(rows):
            answer = {name: shares[index] for name, shares in probabilities.items()}
            assert answer == pytest.approx(row.probabilities)

    async def all_clients() -> None:
        await asyncio.gather(*(client(number) for number in range(16)))

    asyncio.run(all_clients())
