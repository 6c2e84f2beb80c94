"""The model card: what a person should know before relying on the model."""

from __future__ import annotations

from app.contract import Feature, Manifest, Score
from common.markdown import code, prose, table
from training.base.config import TO_BE_WRITTEN, CardSettings
from training.data.dataset import Profile
from training.results.board import Leaderboard
from training.results.leaderboard import refusal
from training.results.report import Report

_FIGURES = (
    ("accuracy", "accuracy"),
    ("precision_macro", "precision (macro)"),
    ("recall_macro", "recall (macro)"),
    ("f1_macro", "F1 (macro)"),
    ("f1_weighted", "F1 (weighted)"),
    ("roc_auc", "ROC AUC"),
    ("log_loss", "log loss"),
)
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
        "## Scores\n\n" + _scores(champion),
        "## By class\n\n" + _classes(manifest, champion),
        "## Confusion on the test split\n\n" + _confusion(manifest, champion),
        "## Features\n\n" + _features(manifest, champion),
        "## Parameters\n\n" + _parameters(champion),
    ]
    return "\n\n".join(parts) + "\n"


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
    return (
        f"A `{manifest.algorithm}` that predicts **{prose(manifest.target)}** "
        f"({', '.join(map(prose, manifest.classes))}) from {len(manifest.features)} features. "
        f"Chosen out of {len(board.rows)}: {prose(board.rule)}.\n\n"
        f"The file is ONNX ({manifest.model.bytes:,} bytes, digest `{manifest.digest}`). It gives the same "
        f"labels as the trained estimator on {champion.parity.data_rows:,} rows of data and "
        f"{champion.parity.generated_rows:,} generated ones, and probabilities within "
        f"{champion.parity.largest_probability_difference:g}."
    )


def _paragraphs(text: str) -> str:
    return "\n\n".join(prose(each, _LONGEST_PARAGRAPH) for each in text.split("\n\n") if each.strip())


def _limits(manifest: Manifest, profile: Profile, settings: CardSettings) -> str:
    rare = min(zip(profile.classes, profile.class_shares, strict=True), key=lambda each: each[1])
    beyond = "are rejected" if manifest.out_of_range == "reject" else "are answered all the same"
    lines = [
        *(prose(each, _LONGEST_PARAGRAPH) for each in settings.limits),
        *(f"**{prose(each)}**" for each in profile.losses()),
        f"Trained on {profile.train_rows:,} rows; the rarest class, {prose(rare[0])}, has {rare[1]:.1%} of them.",
        f"Measured on {profile.test_rows:,} rows: read the intervals, not the points.",
        f"Values outside a declared range {beyond}; within it, far from the data, nothing was measured.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data(manifest: Manifest, profile: Profile) -> str:
    shares = ", ".join(
        f"{prose(name)} {share:.1%}"
        for name, share in zip(profile.classes, profile.class_shares, strict=True)
    )
    return (
        f"Source {code(manifest.data.source, 600)}, {profile.origin.rows:,} rows (digest `{manifest.data.sha256[:12]}…`), "
        f"{profile.duplicates_dropped} of them dropped as duplicates, split into {profile.train_rows:,} for training and "
        f"{profile.test_rows:,} for test, stratified. Classes in training: {shares}."
    )


def _scores(champion: Report) -> str:
    rows = [
        [
            title,
            f"{champion.cv[key].mean:.4f} ± {champion.cv[key].std:.4f}",
            f"{champion.train[key].value:.4f}",
            _interval(champion.test[key]),
        ]
        for key, title in _FIGURES
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
            f"{champion.importance[each.name].mean:.4f} ± {champion.importance[each.name].std:.4f}",
        ]
        for each in ranked
    ]
    return table(["feature", "values", "may be missing", "importance"], rows) + (
        f"\n\nImportance is what {champion.score} on the test split loses when the feature's values are shuffled."
    )


def _values(feature: Feature) -> str:
    if feature.type == "category":
        return ", ".join(map(prose, feature.categories))
    return prose(f"{feature.minimum:g} to {feature.maximum:g} {feature.unit or ''}")


def _parameters(champion: Report) -> str:
    lines = [f"- {code(key)}: {code(value)}" for key, value in champion.parameters.items()]
    if champion.search:
        lines.append(
            f"- found by {champion.search.method} search over {champion.search.candidates} candidates: "
            + ", ".join(map(code, champion.search.best))
        )
    return "\n".join(lines) or "All defaults."


def _interval(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
