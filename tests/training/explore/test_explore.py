from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from tests.training.project import Project
from tests.training.rows import mixed
from tests.training.rows import values as values_of_rows
from training.data.dataset import Origin
from training.explore import association, canvas, stage, values
from training.explore import table as tables
from training.explore.table import Table
from training.prepare import stage as prepare
from training.prepare.checks import check
from training.sections.schema import SchemaSettings

PICTURES = ("class_balance.png", "correlation.png", "distributions.png", "scatter_matrix.png")
OF_VALUES = ("against_target.png", "correlation.png", "scatter_matrix.png", "target.png")

Column = tuple[str, "pd.Series[Any]", float | None]


def number(name: str, values: ArrayLike, unit: str | None = None, step: float = 0.1) -> Column:
    return f"{name} ({unit})" if unit else name, pd.Series(np.asarray(values, dtype=float)), step


def category(name: str, codes: ArrayLike, names: tuple[str, ...]) -> Column:
    known = np.nan_to_num(np.asarray(codes, dtype=float), nan=-1).astype(int)
    return (
        name,
        pd.Series([names[each] if each >= 0 else None for each in known]).astype(
            pd.CategoricalDtype(list(names))
        ),
        None,
    )


def made(target: str, classes: tuple[str, ...], labels: ArrayLike, columns: tuple[Column, ...]) -> Table:
    """As `tabulate` makes it: with names that fit."""
    return whole(*columns, category(target, labels, classes))


def whole(*every: Column) -> Table:
    """The last column is the target."""
    names = canvas.distinct(canvas.shorten(name) for name, _, _ in every)
    frame = pd.DataFrame({name: values for name, (_, values, _) in zip(names, every, strict=True)})
    steps = {name: step for name, (_, _, step) in zip(names, every, strict=True) if step is not None}
    return Table(frame, names[-1], steps)


@cache
def table(kind: str) -> Table:
    random = np.random.default_rng(0)
    rows = 400
    if kind == "few":
        labels = np.arange(rows) % 3
        columns = [number(f"measure_{each}", random.normal(labels, 1).round(1), "cm") for each in "abcd"]
        return made("species", ("setosa", "versicolor", "virginica"), labels, tuple(columns))
    if kind == "wide":
        labels = np.arange(rows) % 10
        columns = [
            number(f"pixel_{each}", random.poisson(labels * (each % 7) / 3), step=1) for each in range(36)
        ]
        columns[3] = number("pixel_3", np.zeros(rows))
        return made("digit", tuple("0123456789"), labels, tuple(columns))
    if kind == "very wide":
        labels = np.arange(rows) % 3
        columns = [
            number(f"gene_{each}", random.normal(labels * (each % 10 == 3), 1).round(2), "a.u.")
            for each in range(751)
        ]
        columns[5] = category("tissue", labels, ("skin", "bone", "lung"))
        return made("disease", ("none", "mild", "severe"), labels, tuple(columns))
    if kind == "one":
        labels = np.arange(rows) % 2
        return made("y", ("no", "yes"), labels, (number("x", random.normal(labels, 1).round(1)),))
    if kind == "categories":
        labels = np.arange(rows) % 2
        codes = random.integers(0, 3, rows)
        columns = [category(each, codes, ("a", "b", "a rather long category")) for each in ("one", "two")]
        return made("y", ("no", "yes"), labels, tuple(columns))
    if kind in ("dates", "value of dates"):
        profile, split = mixed() if kind == "dates" else values_of_rows()
        return tables.tabulate(split.frame, profile)
    if kind == "value":
        columns = [number(f"measure_{each}", random.normal(0, 3, rows).round(1), "cm") for each in range(9)]
        columns[1] = number("flag", np.arange(rows) % 2, step=1)
        columns[2] = category("home", np.arange(rows) % 3, ("rent", "own", "other"))
        return whole(*columns, number("price", columns[0][1] * 2 + random.normal(0, 1, rows).round(1), "EUR"))
    if kind == "value of one":
        x = random.normal(size=rows).round(1)
        return whole(number("x", x), number("y", x**2 * 1e6, step=1))
    if kind == "value of categories":
        several = [random.integers(0, count, rows) for count in (2, 3, 40)]
        names = (
            ("no", "yes"),
            ("a rather long category", "another one", "c"),
            tuple(f"region {each}" for each in range(40)),
        )
        columns = [
            category(f"kind {each}", *one) for each, one in enumerate(zip(several, names, strict=True))
        ]
        return whole(
            *columns,
            number("a_target_that_goes_on_for_much_longer_than_anything", several[0] - 1e-9, step=1e-12),
        )
    classes = 20 if kind == "many classes" else 4
    labels = np.arange(rows) % classes
    gaps = random.normal(labels, 1).round(2)
    gaps[random.random(rows) < 0.2] = np.nan
    columns = [
        number("income", np.exp(random.normal(10, 2, rows)).round(), "EUR", 1),
        number("a_name_that_goes_on_for_much_longer_than_any_label_has_room_for", gaps),
        number("tiny", random.normal(0, 1e-5, rows), step=1e-7),
        number("never_seen", np.full(rows, np.nan)),
        number("the_same", np.full(rows, 3.5)),
        category(
            "region of the $customer_1$",
            random.integers(0, 40, rows),
            tuple(f"region {each}" for each in range(40)),
        ),
        category("home", np.where(random.random(rows) < 0.5, np.nan, 1), ("rent", "own")),
    ]
    if kind == "mixed value":
        return whole(*columns, number("spent", np.exp(random.normal(12, 3, rows)).round(), "EUR", 1))
    return made(
        "decision", tuple(f"a class called {each}" for each in range(classes)), labels, tuple(columns)
    )


# These draw dozens of panels.
WIDE = pytest.mark.long("tests/training/explore", "training/data", "training/explore")
KINDS = ("few", "wide", "very wide", "one", "categories", "dates", "mixed", "many classes")
KINDS_OF_VALUES = ("value", "value of one", "value of categories", "value of dates", "mixed value")
CASES = [
    *(
        pytest.param(kind, name, marks=WIDE if kind in ("wide", "very wide", "many classes") else ())
        for kind in KINDS
        for name in PICTURES
    ),
    *((kind, name) for kind in KINDS_OF_VALUES for name in OF_VALUES),
]


def words(figure: Figure) -> Iterator[Text]:
    """All texts that are drawn; ticks beyond the limits are not."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip():
            yield text


def hidden(figure: Figure) -> set[int]:
    found = set()
    for axes in figure.axes:
        if not axes.axison:
            found |= {id(each) for each in axes.findobj(Text)}
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = (high - low) * 1e-6
            for tick in axis.get_major_ticks():
                if not low - margin <= tick.get_loc() <= high + margin:
                    found |= {id(tick.label1), id(tick.label2)}
    return found


@dataclass(frozen=True)
class Drawn:
    content: bytes
    words: tuple[tuple[str, Bbox], ...]

    @property
    def texts(self) -> set[str]:
        return {text for text, _ in self.words}


@cache
def drawn(kind: str, name: str) -> Drawn:
    """A picture of a kind of table, drawn once for all tests that look at it."""
    figures = []

    def draw() -> Figure:
        drawn = table(kind)
        figures.append(stage.PICTURES[drawn.task][name](drawn))
        return figures[0]

    content = canvas.png(draw)
    with mpl.rc_context(canvas.style()):
        FigureCanvasAgg(figures[0])
        figures[0].draw_without_rendering()
        unseen = hidden(figures[0])
        shown = [each for each in words(figures[0]) if id(each) not in unseen]
        boxes = [(each.get_text(), each.get_window_extent()) for each in shown]
    return Drawn(content, tuple(boxes))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_any_shape_of_data_gives_a_picture(kind: str, name: str) -> None:
    width, height = struct.unpack(">II", drawn(kind, name).content[16:24])
    assert 350 < width < 2800
    assert 150 < height < 2600


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_no_words_are_on_top_of_each_other(kind: str, name: str) -> None:
    for (text, a), (other, b) in combinations(drawn(kind, name).words, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert not (across > 3 and up > 3), f"{text!r} and {other!r}"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "names"), [("mixed", PICTURES), ("mixed value", OF_VALUES)])
def test_same_rows_give_same_bytes_whatever_the_machine_is_set_to(kind: str, names: tuple[str, ...]) -> None:
    once = {name: drawn(kind, name).content for name in names}
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        assert stage.draw(table(kind)) == once


@pytest.mark.parametrize(("kind", "names"), [("one", PICTURES), ("value of one", OF_VALUES)])
def test_pictures_name_no_software_and_no_time(kind: str, names: tuple[str, ...]) -> None:
    pictures = stage.draw(table(kind))
    assert sorted(pictures) == sorted(names)
    for content in pictures.values():
        kinds, position = set(), 8
        while position < len(content):
            length = struct.unpack(">I", content[position : position + 4])[0]
            kinds.add(content[position + 4 : position + 8])
            position += 12 + length
        assert not kinds & {b"tEXt", b"iTXt", b"zTXt", b"tIME"}


@pytest.mark.long("training/explore", "training/data", "tests/training/explore")
@pytest.mark.parametrize("name", ["distributions.png", "correlation.png"])
def test_of_very_many_features_the_best_are_drawn_and_it_says_so(name: str) -> None:
    texts = drawn("very wide", name).texts
    assert any("The 64 of 751 features that separate the classes best." in each for each in texts)
    genes = {each for each in texts if each.startswith("gene_")}
    # Every tenth tells something.
    assert len(genes) == 63
    assert all(each.removesuffix(" (a.u.)").endswith("3") for each in genes)
    assert "tissue" in texts


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_is_a_warning(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Table) -> Figure:
        raise MemoryError("no room for a $10 picture")

    pictures = {**stage.PICTURES["classification"], "correlation.png": broken}

    project.run("fetch")
    project.run("prepare")
    monkeypatch.setattr(stage, "PICTURES", {"classification": pictures})
    project.run("explore")
    drawn = {each.name: each.read_bytes() for each in (project.root / "reports/explore").iterdir()}
    assert sorted(drawn) == sorted(PICTURES)
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "correlation.png could not be drawn" in warning.getMessage()
    assert warning.exc_info

    # For a person who calls it, a fault is a fault.
    with pytest.raises(MemoryError):
        stage.draw(table("one"))


@pytest.mark.slow
def test_scatter_matrix_of_many_features_shows_the_best_and_says_so() -> None:
    wide = table("wide")
    chosen = tables.informative(wide)
    assert len(chosen) == 6
    # In the sample, pixels repeat in sevens: the first of each seven never depends on the class.
    assert all(int(each.split("_")[1]) % 7 >= 4 for each in chosen)
    assert any("The 6 of 36 features" in each for each in drawn("wide", "scatter_matrix.png").texts)


def test_associations_are_pearson_correlation_ratio_and_cramers_v() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=300)
    y = x + random.normal(size=300)
    y[::10] = np.nan
    kept = ~np.isnan(y)
    halves = pd.Categorical(np.where(x > 0, "low", "high"))
    found = association.associations(pd.DataFrame({"x": x, "y": y, "half": halves, "constant": 1.0}))
    assert found.loc["x", "y"] == pytest.approx(np.corrcoef(x[kept], y[kept])[0, 1])
    assert found.loc["half", "half"] == pytest.approx(1)
    # With two groups the correlation ratio is the size of Pearson's r.
    assert found.loc["x", "half"] == pytest.approx(abs(np.corrcoef(x, x > 0)[0, 1]))
    assert found.loc["y", "half"] == pytest.approx(abs(np.corrcoef(y[kept], x[kept] > 0)[0, 1]))
    assert found["constant"].isna().all()
    pd.testing.assert_frame_equal(found, found.T)


def test_bins_are_whole_steps_wide() -> None:
    values = np.random.default_rng(0).uniform(0, 10, 1000).round(1)
    edges = tables.bin_edges(pd.Series(values), 0.1)
    widths = np.diff(edges) / 0.1
    assert widths == pytest.approx(np.full(len(widths), round(widths[0])))
    assert edges[0] < values.min() < values.max() < edges[-1]


def test_far_values_are_left_out_and_rare_categories_become_one() -> None:
    values = pd.Series([*np.linspace(0, 1, 1000), 1e9])
    assert tables.in_view(values).max() <= 1
    letters = pd.Series([*"aaabbbcccdddeeefffggghhhiiijjjkkklmn"], dtype="category")
    merged = tables.in_view(letters)
    assert list(merged.cat.categories) == [*"abcdefghijk", "3 others"]
    assert (merged == "3 others").sum() == 3


def test_names_are_cut_in_the_middle_and_stay_distinct() -> None:
    assert canvas.shorten("a_name_that_goes_on", 40) == "a_name_that_goes_on"
    assert canvas.shorten("mean_radius_of_the_cell_worst", 16) == "mean_radiu…worst"
    assert canvas.distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


@pytest.mark.slow
def test_stage_writes_its_folder_whole(project: Project) -> None:
    folder = project.root / "reports/explore"
    folder.mkdir(parents=True)
    for name in (PICTURES[0], "of_an_earlier_version.png"):
        (folder / name).write_bytes(b"")
    project.run("fetch")
    project.run("prepare")
    project.run("explore")
    assert sorted(each.name for each in folder.iterdir()) == sorted(PICTURES)
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "cells", "expected"), [(50, 10**6, 50), (10**6, 200, 40), (10**6, 10**6, 112)]
)
def test_pictures_are_of_a_sample_of_many_rows_or_columns(
    project: Project, monkeypatch: pytest.MonkeyPatch, rows: int, cells: int, expected: int
) -> None:
    project.run("fetch")
    project.run("prepare")
    drawn: list[int] = []
    monkeypatch.setattr(stage, "MOST_ROWS", rows)
    monkeypatch.setattr(stage, "MOST_CELLS", cells)

    def count(_: str, __: object, shown: Table) -> bytes:
        drawn.append(len(shown.frame))
        return b""

    monkeypatch.setattr(stage, "_drawn", count)
    project.run("explore")
    assert set(drawn) == {expected}


def test_prepared_rows_become_columns() -> None:
    profile, split = mixed()
    data = tables.tabulate(split.frame, profile)
    assert data.features == [each.name for each in profile.features]
    assert np.array_equal(data.frame["colour"].isna(), split.frame["colour"].isna())
    assert len(data.frame) == len(split)
    assert data.dates == {"seen"}
    first = split.frame["seen"].dropna()
    assert data.frame["seen"].dropna().tolist() == [each.timestamp() / 86400 for each in first]


def test_dates_are_written_as_dates() -> None:
    labels = drawn("dates", "distributions.png").texts
    assert {"2023", "2024"} <= labels


def test_a_quantity_becomes_a_column_with_its_unit() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=80).round(1), "y": random.normal(size=80).round(1)})
    settings = {"target": "y", "task": "regression", "unit": "EUR", "features": {"x": {"type": "number"}}}
    schema = SchemaSettings.model_validate(settings)
    checked = check(frame, schema)
    origin = Origin(source="-", sha256="0" * 64, rows=80, columns=("x", "y"))
    profile = prepare.resolve(checked, schema, origin, checked.frame, checked.frame)
    data = tables.tabulate(checked.frame, profile)
    assert (data.task, data.target, data.features) == ("regression", "y (EUR)", ["x"])
    assert data.numbers == ["x"]
    assert data.frame["y (EUR)"].tolist() == checked.frame["y"].tolist()


def test_features_that_go_with_a_quantity_most_are_found() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=300)
    codes = (y > 0.5).astype(int) + (y > -0.5)
    data = whole(
        *(number(f"noise {each}", random.normal(size=300)) for each in range(8)),
        number("falls", -y + random.normal(size=300)),
        category("level", codes, ("low", "middle", "high")),
        category("other", random.integers(0, 3, 300), ("a", "b", "c")),
        number("y", y),
    )
    assert tables.best(data, data.features, 2) == ["falls", "level"]
    assert tables.selection(data, ["falls", "level"]) == (
        "The 2 of 11 features that correlate with the target most."
    )


def test_quantiles_along_a_number_follow_the_target() -> None:
    x = pd.Series(np.linspace(0, 10, 1000))
    places, found = values.quantiles_along(x, x * 2)
    assert places == pytest.approx(np.arange(0.5, 10), abs=0.01)
    assert found[2] == pytest.approx(places * 2)
    low, high = found[0], found[-1]
    assert high - low == pytest.approx(np.full(10, 0.8 * 2), rel=0.01)


@pytest.mark.slow
def test_pictures_of_a_regression_take_the_place_of_those_of_classes(project: Project) -> None:
    for source, target, names in (("iris", "species", PICTURES), ("diabetes", "target", OF_VALUES)):
        project.run("draft", f"sklearn:{source}", "--target", target, "--write")
        for each in ("fetch", "prepare", "explore"):
            project.run(each)
        folder = project.root / "reports/explore"
        assert sorted(each.name for each in folder.iterdir()) == sorted(names)
