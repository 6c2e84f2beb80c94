"""The model card: what a person should know before relying on the model."""

from __future__ import annotations

from app.contract import Feature, Interval, Manifest
from common.markdown import code, prose, table
from training.data.dataset import Profile
from training.results.board import Leaderboard
from training.results.figures import TITLES, interval, shown, spread
from training.results.leaderboard import refusal
from training.results.report import Parity, Report
from training.sections.card import TO_BE_WRITTEN, CardSettings
from training.sections.metrics import METRICS, SECOND_SCORE

_LONGEST_PARAGRAPH = 4000


def render(
    manifest: Manifest, champion: Report, board: Leaderboard, profile: Profile, settings: CardSettings
) -> str:
    """The card as Markdown; the same inputs give the same text."""
    parts = [
        f"# Model card: {prose(manifest.name)} {board.version}".rstrip(),
        *_warnings(board, settings),
        _summary(manifest, champion, board),
        "## Intended use\n\n" + _paragraphs(settings.intended_use),
        "## Limits\n\n" + _limits(manifest, profile, settings),
        "## Data\n\n" + _data(manifest, profile),
        "## Scores\n\n" + _scores(manifest, champion),
        *_decision_section(manifest),
        *(_by_class(manifest, champion) if manifest.classes else [_interval_section(manifest)]),
        *_slices_section(champion),
        *_explanation_section(champion),
        "## Features\n\n" + _features(manifest, champion),
        "## Parameters\n\n" + _parameters(champion),
    ]
    return "\n\n".join(parts) + "\n"


def _by_class(manifest: Manifest, champion: Report) -> list[str]:
    return [
        "## By class\n\n" + _classes(manifest, champion),
        "## Confusion on the test split\n\n" + _confusion(manifest, champion),
    ]


def _explanation_section(champion: Report) -> list[str]:
    explained = champion.explained
    if explained is None:
        return []
    about, unit = explained.explanation, explained.explanation.unit
    text = (
        f"On request, the service says what each feature contributes to a prediction{f', in {prose(unit)}' if unit else ''}. "
        f"Base and contributions add up to the model's score, on {explained.rows:,} rows to "
        f"{explained.largest_difference:.1g}."
    )
    if about.positive is not None:
        text += f" The score is that of {prose(about.positive)}."
    return ["## Explanations\n\n" + text]


def _decision_section(manifest: Manifest) -> list[str]:
    found = manifest.decision
    if found is None:
        return []
    if found.threshold is None:
        text = "The answer is the class with the lowest expected cost."
    else:
        text = f"The answer is {prose(found.positive or '')} from a probability of {found.threshold:g} on."
    if found.cost is not None:
        names = [prose(each) for each in manifest.classes]
        rows = [
            [name, *(f"{each:g}" for each in costs)] for name, costs in zip(names, found.cost, strict=True)
        ]
        text += " What an answer costs:\n\n" + table(["actual ↓ answered →", *names], rows)
    return ["## Decision\n\n" + text]


def _slices_section(champion: Report) -> list[str]:
    if not champion.slices:
        return []
    second = SECOND_SCORE["classification" if champion.confusion else "regression"]
    rows = [
        [
            prose(column),
            prose(value),
            f"{each.rows:,}",
            *(interval(each.test[key]) if key in each.test else "–" for key in (champion.score, second)),
        ]
        for column, values in champion.slices.items()
        for value, each in values.items()
    ]
    head = ["column", "value", "rows", TITLES[champion.score], TITLES[second]]
    return ["## By slice of the test split\n\n" + table(head, rows, align="llrrr")]


def _interval_section(manifest: Manifest) -> str:
    found = manifest.interval
    assert found is not None  # noqa: S101  a regression has one
    low, high = found.coverage.low, found.coverage.high
    wrong = off_level(found)
    return (
        "## Prediction interval\n\n"
        f"The value ± {shown(found.margin)}{_unit(manifest)} is made to hold {found.level:.0%} of the true values. Of the "
        f"test split it holds {found.coverage.value:.1%} (bootstrap interval {low:.1%} to {high:.1%}). The margin is a "
        "quantile of the errors that models of the cross-validation made on rows they were not fitted on, and the same for "
        "every row." + (f"\n\n**{wrong}**" if wrong else "")
    )


def off_level(found: Interval | None) -> str:
    """A sentence if the test split shows that a prediction interval does not hold what it is made to hold."""
    if found is None or found.coverage.low is None or found.coverage.high is None:
        return ""
    if found.coverage.low <= found.level <= found.coverage.high:
        return ""
    narrow = found.coverage.high < found.level
    return (
        f"The prediction interval is too {'narrow' if narrow else 'wide'} for the test split: it holds {found.coverage.value:.1%} "
        f"of the true values and not {found.level:.0%}. The test rows are not like those of the folds, as newer ones may be."
    )


def _unit(manifest: Manifest) -> str:
    unit = manifest.value.unit if manifest.value else None
    return f" {prose(unit)}" if unit else ""


def unwritten(settings: CardSettings) -> list[str]:
    """The keys of the card that still hold their draft."""
    texts = {"card.intended_use": [settings.intended_use], "card.limits": settings.limits}
    return [
        key for key, each in texts.items() if any(text.strip().startswith(TO_BE_WRITTEN) for text in each)
    ]


def _warnings(board: Leaderboard, settings: CardSettings) -> list[str]:
    lines = [f"> **{prose(refusal(board))}**"] if board.missed else []
    if keys := unwritten(settings):
        lines.append(
            f"> **This card is not finished: write {' and '.join(map(code, keys))} in params.yaml.**"
        )
    return lines


def _summary(manifest: Manifest, champion: Report, board: Leaderboard) -> str:
    parity = champion.parity
    if manifest.value is None:
        answers = ", ".join(map(prose, manifest.classes))
        same = (
            f"It gives the same labels as the trained estimator on {_rows(parity)}, and probabilities within "
        )
        gap = f"{parity.largest_difference:g}."
    else:
        answers = f"a number{f' in{_unit(manifest)}' if _unit(manifest) else ''}"
        same = f"Its values differ from those of the trained estimator on {_rows(parity)} by at most "
        gap = f"{parity.largest_difference:g} standard deviations of the target."
    return (
        f"A `{manifest.algorithm}` that predicts **{prose(manifest.target)}** "
        f"({answers}) from {len(manifest.features)} features. "
        f"Chosen out of {len(board.rows)}: {prose(board.rule)}.{_approximated(manifest)}\n\n"
        f"The file is ONNX ({manifest.model.bytes:,} bytes, digest `{manifest.digest}`). {same}{gap}"
    )


def _approximated(manifest: Manifest) -> str:
    if manifest.approximated is None:
        return ""
    return (
        f" There are too many training rows for an exact `{manifest.algorithm}`: this is its Nyström approximation, with "
        f"{manifest.approximated.components:,} components."
    )


def _rows(parity: Parity) -> str:
    return f"{parity.data_rows:,} rows of data and {parity.generated_rows:,} generated ones"


def _paragraphs(text: str) -> str:
    return "\n\n".join(prose(each, _LONGEST_PARAGRAPH) for each in text.split("\n\n") if each.strip())


def _limits(manifest: Manifest, profile: Profile, settings: CardSettings) -> str:
    beyond = "are rejected" if manifest.out_of_range == "reject" else "are answered all the same"
    lines = [
        *(prose(each, _LONGEST_PARAGRAPH) for each in settings.limits),
        *(f"**{prose(each)}**" for each in (*profile.losses(), *profile.leakage)),
        f"Trained on {profile.train_rows:,} rows; {_thinnest(profile)}.",
        f"Measured on {profile.test_rows:,} rows: read the intervals, not the points.",
        f"Values outside a declared range {beyond}; within it, far from the data, nothing was measured.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _apart(profile: Profile) -> str:
    """How the test rows were chosen."""
    division = profile.division
    newer = f"the newest, from {division.test_from} on"
    return {
        "random": "drawn at random" + (" within each class" if profile.classes else ""),
        "time": newer,
        "group": f"{division.test_groups:,} groups that training does not have",
        "group_time": f"{newer}, of {division.test_groups:,} groups that training does not have",
    }[division.by]


def _thinnest(profile: Profile) -> str:
    """What the training rows have least of."""
    if profile.value is None:
        name, share = min(zip(profile.classes, profile.class_shares, strict=True), key=lambda each: each[1])
        return f"the rarest class, {prose(name)}, has {share:.1%} of them"
    return f"their values lie between {profile.value.minimum:.6g} and {profile.value.maximum:.6g}"


def _data(manifest: Manifest, profile: Profile) -> str:
    if profile.value is None:
        shares = ", ".join(
            f"{prose(name)} {share:.1%}"
            for name, share in zip(profile.classes, profile.class_shares, strict=True)
        )
        drawn = f"Classes in training: {shares}."
    else:
        drawn = f"Median in training: {profile.value.typical:.6g}{_unit(manifest)}."
    return (
        f"Source {code(manifest.data.source, 600)}, {profile.origin.rows:,} rows (digest `{manifest.data.sha256[:12]}…`), "
        f"{profile.duplicates_dropped} of them dropped as duplicates, split into {profile.train_rows:,} for training and "
        f"{profile.test_rows:,} for test, {_apart(profile)}. {drawn}"
    )


def _scores(manifest: Manifest, champion: Report) -> str:
    rows = [
        [
            TITLES[key],
            spread(champion.cv[key].mean, champion.cv[key].std, 4),
            shown(champion.train[key].value, 4),
            interval(champion.test[key], 4),
        ]
        for key in METRICS[manifest.task]
        if key in champion.test
    ]
    return table(["score", "cross-validated", "train", "test"], rows) + (
        f"\n\nMean ± standard deviation over {len(champion.cv[champion.score].folds)} folds; "
        "in brackets the bootstrap interval."
    )


def _classes(manifest: Manifest, champion: Report) -> str:
    figures = ((name, champion.per_class[name]) for name in manifest.classes)
    rows = [
        [
            prose(name),
            *(f"{each:.3f}" for each in (of.precision, of.recall, of.f1, of.roc_auc)),
            str(of.support),
        ]
        for name, of in figures
    ]
    return table(["class", "precision", "recall", "F1", "ROC AUC", "rows"], rows)


def _confusion(manifest: Manifest, champion: Report) -> str:
    names = [prose(each) for each in manifest.classes]
    rows = [[name, *map(str, counts)] for name, counts in zip(names, champion.confusion, strict=True)]
    return table(["actual ↓ predicted →", *names], rows)


def _features(manifest: Manifest, champion: Report) -> str:
    ranked = sorted(manifest.features, key=lambda each: (-champion.importance[each.name].mean, each.name))
    rows = [
        [
            prose(each.name),
            _values(each),
            "yes" if each.missing else "no",
            spread(champion.importance[each.name].mean, champion.importance[each.name].std, 4),
        ]
        for each in ranked
    ]
    return table(["feature", "values", "may be missing", "importance"], rows) + (
        f"\n\nImportance is what {champion.score} on the test split loses when the feature's values are shuffled."
        + _samples(champion)
    )


def _samples(champion: Report) -> str:
    if not champion.samples:
        return ""
    parts = [f"{what} on {rows:,} rows" for what, rows in champion.samples.items()]
    return f" There are many rows, so random samples of them were measured: {', '.join(parts)}."


def _values(feature: Feature) -> str:
    if feature.type == "category":
        return ", ".join(map(prose, feature.categories))
    if feature.type == "datetime":
        return prose(f"{feature.span} ({feature.timezone}): {', '.join(feature.parts)}")
    return prose(f"{feature.minimum:g} to {feature.maximum:g} {feature.unit or ''}")


def _parameters(champion: Report) -> str:
    lines = [f"- {code(key)}: {code(value)}" for key, value in champion.parameters.items()]
    if champion.search:
        lines.append(
            f"- found by {champion.search.method} search over {champion.search.candidates} candidates: "
            + ", ".join(map(code, champion.search.best))
        )
    return "\n".join(lines) or "All defaults."
