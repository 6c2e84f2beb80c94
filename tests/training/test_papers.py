"""The Markdown of a whole run on names that would break it: shown as they are, and without effect."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.common.test_markdown import Page, squeezed
from tests.training.project import Project
from training.sections.card import TO_BE_WRITTEN

CLASSES = ("a|b", "<b>bold</b>", "@everyone [x](https://evil.example)")
CATEGORIES = ("`code`", "www.evil.example", "<!-- hidden", "1. item")
NUMBER = "<script>alert(1)</script>"
CATEGORY = "_size_ | `cm`"
TARGET = "kind #1 <i>"
SENTENCE = "Not for https://evil.example, @torvalds or <img src=x>."


def test_whatever_names_hold_is_shown_as_it_is(project: Project) -> None:
    rows = [
        {NUMBER: index % 7 + 10 * (index % 3), CATEGORY: CATEGORIES[index % 4], TARGET: CLASSES[index % 3]}
        for index in range(90)
    ]
    pd.DataFrame(rows).to_csv(project.root / "data/source/hostile.csv", index=False)
    project.change(
        name="<i>model</i> | #1",
        data={"source": "data/source/hostile.csv"},
        schema={
            "target": TARGET,
            "duplicates": "keep",
            "features": {NUMBER: {"type": "number", "unit": "<u>|</u>"}, CATEGORY: {"type": "category"}},
        },
        train={"algorithms": {"decision_tree": {"max_depth": 3}}},
        select__gate={},
        card={"intended_use": f"{SENTENCE}\n\n# {SENTENCE}", "limits": [SENTENCE, "a\nb"]},
    )
    for stage, *arguments in (["fetch"], ["prepare"], ["train", "decision_tree"], ["select"]):
        project.run(stage, *arguments)

    allowed = {"h1", "h2", "p", "strong", "code", "ul", "li"}
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    for path in (Path("MODEL_CARD.md"), Path("reports/leaderboard.md"), Path("reports/data.md")):
        page = Page(path.read_text())
        assert set(page.tags) <= allowed | table, path
        for part in page.source.split("<table>")[1:]:
            head, *body = part.split("</table>")[0].split("<tr>")[1:]
            assert body
            assert {row.count("<td") for row in body} == {head.count("<th")}, path

    card = squeezed(Page(Path("MODEL_CARD.md").read_text()).text)
    for text in (*CLASSES, *CATEGORIES, NUMBER, CATEGORY, TARGET, "<u>|</u>", "<i>model</i> | #1"):
        assert squeezed(text) in card
    assert card.count(SENTENCE) == 3
    assert card.count(" # " + SENTENCE) == 1
    data = squeezed(Page(Path("reports/data.md").read_text()).text)
    for text in (*CLASSES, *CATEGORIES, NUMBER, CATEGORY, TARGET):
        assert squeezed(text) in data


def test_a_card_that_is_not_written_yet_says_so(trained: Project) -> None:
    limits = trained.params()["card"]["limits"]
    written = Path("MODEL_CARD.md").read_text()
    trained.change(card__intended_use=f"{TO_BE_WRITTEN}: what is it for?")
    trained.run("select")
    assert "not finished: write `card.intended_use` in params.yaml" in Path("MODEL_CARD.md").read_text()
    trained.change(card__limits=[*limits, f"{TO_BE_WRITTEN}: where does it fail?"])
    trained.run("select")
    assert "write `card.intended_use` and `card.limits` in params.yaml" in Path("MODEL_CARD.md").read_text()
    assert "not finished" not in written
