"""Rows are valid by the schema and spread as the training data did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import Bin, CategoryFeature, Manifest, NumberFeature
from tests.bundles import write_mixed_bundle, write_number_bundle
from tests.load.rows import RowSource


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_mixed_bundle(tmp_path_factory.mktemp("bundle"))


def only(manifest: Manifest, *features: NumberFeature | CategoryFeature) -> RowSource:
    return RowSource(manifest.model_copy(update={"features": features}))


@st.composite
def numbers(draw: st.DrawFn) -> NumberFeature:
    """A feature on a grid; some of its cut points lie between grid values or outside the range."""
    step = draw(st.sampled_from([0.001, 0.05, 0.1, 0.25, 1.0, 3.0, 100.0]))
    low = draw(st.integers(-500, 500))
    high = low + draw(st.integers(1, 1000))
    edges = draw(st.lists(st.integers(2 * low - 2, 2 * high + 2), max_size=9, unique=True))
    missing = draw(st.booleans())
    count = len(edges) + 1 + missing
    weights = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    total = sum(weights) or 1
    return NumberFeature(
        name="x",
        minimum=round(low * step, 3),
        maximum=round(high * step, 3),
        bounded=True,
        step=step,
        typical=round(low * step, 3),
        missing=missing,
        edges=tuple(sorted(round(each / 2 * step, 5) for each in edges)),
        bins=tuple(Bin(label=str(index), share=weight / total) for index, weight in enumerate(weights)),
    )


@given(numbers(), st.integers(0, 2**32))
def test_number_is_in_range_on_the_grid_and_in_a_bin_that_has_a_share(
    mixed: Manifest, feature: NumberFeature, seed: int
) -> None:
    value = only(mixed, feature).draw(Random(seed))["x"]

    shares = [each.share for each in feature.bins]
    anywhere = not any(shares)
    if value is None:
        assert feature.missing
        assert anywhere or shares[-1] > 0
        return
    assert isinstance(value, float)
    assert feature.minimum <= value <= feature.maximum
    on_grid = abs(value / feature.step - round(value / feature.step)) < 1e-6
    assert on_grid or value in (*feature.edges, feature.minimum, feature.maximum)
    bin_of_value = sum(edge <= value for edge in feature.edges)
    # A bin outside the range can only be stood in for by the nearest limit.
    assert anywhere or shares[bin_of_value] > 0 or value in (feature.minimum, feature.maximum)


def test_values_are_written_as_a_person_would(tmp_path: Path) -> None:
    source, random = RowSource(write_number_bundle(tmp_path)), Random(1)

    drawn = {repr(value) for _ in range(500) for value in source.draw(random).values()}

    assert max(map(len, drawn)) <= len("12.0")


def test_bins_categories_and_gaps_come_with_their_shares(mixed: Manifest) -> None:
    source, random, count = RowSource(mixed), Random(7), 4000

    rows = [source.draw(random) for _ in range(count)]

    soils = Counter(row["soil type"] for row in rows)
    expected = {"clay": 0.5, "löss & loam": 0.2, "sand": 0.2, None: 0.1}
    assert soils.keys() == expected.keys()
    for soil, share in expected.items():
        assert soils[soil] / count == pytest.approx(share, abs=0.03)
    heights = [row["Höhe (cm)"] for row in rows]
    assert heights.count(None) / count == pytest.approx(0.1, abs=0.03)
    low = sum(isinstance(each, float) and each < 5 for each in heights)
    assert low / count == pytest.approx(0.3, abs=0.03)
    assert all(row["age"] is not None for row in rows)


def test_a_seed_draws_the_same_rows(mixed: Manifest) -> None:
    source = RowSource(mixed)

    first, second = ([source.draw(random) for _ in range(20)] for random in (Random(3), Random(3)))

    assert first == second
