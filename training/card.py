"""The model card: what a person should know before relying on the model."""

from __future__ import annotations

from app.contract import Manifest, Score
from training.config import CardSettings
from training.dataset import Profile
from training.leaderboard import Leaderboard
from training.report import Report

_FIGURES = (
    ("accuracy", "accuracy"),
    ("precision_macro", "precision (macro)"),
    ("recall_macro", "recall (macro)"),
    ("f1_macro", "F1 (macro)"),
    ("f1_weighted", "F1 (weighted)"),
    ("roc_auc", "ROC AUC"),
    ("log_loss", "log loss"),
)


def render(
    manifest: Manifest, champion: Report, board: Leaderboard, profile: Profile, settings: CardSettings
) -> str:
    """The card as Markdown; the same inputs give the same text."""
    parts = [
        f"# Model card: {manifest.name} {manifest.version}",
        _summary(manifest, champion, board),
        "## Intended use\n\n" + settings.intended_use.strip(),
        "## Limits\n\n" + _limits(manifest, profile, settings),
        "## Data\n\n" + _data(manifest, profile),
        "## Scores\n\n" + _scores(champion),
        "## By class\n\n" + _classes(manifest, champion),
        "## Confusion on the test split\n\n" + _confusion(manifest, champion),
        "## Features\n\n" + _features(manifest, champion),
        "## Parameters\n\n" + _parameters(champion),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(manifest: Manifest, champion: Report, board: Leaderboard) -> str:
    return (
        f"A `{manifest.algorithm}` that predicts **{manifest.target}** "
        f"({', '.join(manifest.classes)}) from {len(manifest.features)} features. "
        f"Chosen out of {len(board.rows)}: {board.rule}.\n\n"
        f"The file is ONNX ({manifest.model.bytes:,} bytes, digest `{manifest.digest}`). It gives the same "
        f"labels as the trained estimator on {champion.parity.data_rows:,} rows of data and "
        f"{champion.parity.generated_rows:,} generated ones, and probabilities within "
        f"{champion.parity.largest_probability_difference:g}."
    )


def _limits(manifest: Manifest, profile: Profile, settings: CardSettings) -> str:
    rare = min(zip(profile.classes, profile.class_shares, strict=True), key=lambda each: each[1])
    beyond = "are rejected" if manifest.out_of_range == "reject" else "are answered all the same"
    lines = [
        *settings.limits,
        f"Trained on {profile.train_rows:,} rows; the rarest class, {rare[0]}, has {rare[1]:.1%} of them.",
        f"Measured on {profile.test_rows:,} rows: read the intervals, not the points.",
        f"Values outside a declared range {beyond}; within it, far from the data, nothing was measured.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data(manifest: Manifest, profile: Profile) -> str:
    shares = ", ".join(
        f"{name} {share:.1%}" for name, share in zip(profile.classes, profile.class_shares, strict=True)
    )
    return (
        f"Source `{manifest.data.source}`, {profile.origin.rows:,} rows (digest `{manifest.data.sha256[:12]}…`), "
        f"{profile.duplicates_dropped} of them dropped as duplicates, split into {profile.train_rows:,} for training and "
        f"{profile.test_rows:,} for test, stratified. Classes in training: {shares}."
    )


def _scores(champion: Report) -> str:
    lines = ["| score | cross-validated | train | test |", "|---|---|---|---|"]
    lines += [
        f"| {title} | {champion.cv[key].mean:.4f} ± {champion.cv[key].std:.4f} "
        f"| {champion.train[key].value:.4f} | {_interval(champion.test[key])} |"
        for key, title in _FIGURES
    ]
    return "\n".join(lines) + (
        f"\n\nMean ± standard deviation over {len(champion.cv[champion.score].folds)} folds; "
        "in brackets the bootstrap interval."
    )


def _classes(manifest: Manifest, champion: Report) -> str:
    lines = ["| class | precision | recall | F1 | ROC AUC | rows |", "|---|---|---|---|---|---|"]
    for name in manifest.classes:
        each = champion.per_class[name]
        lines.append(
            f"| {name} | {each.precision:.3f} | {each.recall:.3f} | {each.f1:.3f} | {each.roc_auc:.3f} "
            f"| {each.support} |"
        )
    return "\n".join(lines)


def _confusion(manifest: Manifest, champion: Report) -> str:
    lines = [
        f"| actual ↓ predicted → | {' | '.join(manifest.classes)} |",
        f"|---|{'---|' * len(manifest.classes)}",
    ]
    for name, counts in zip(manifest.classes, champion.confusion, strict=True):
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _features(manifest: Manifest, champion: Report) -> str:
    lines = ["| feature | values | may be missing | importance |", "|---|---|---|---|"]
    ranked = sorted(manifest.features, key=lambda each: (-champion.importance[each.name].mean, each.name))
    for each in ranked:
        importance = champion.importance[each.name]
        if each.type == "number":
            values = f"{each.minimum:g} to {each.maximum:g}" + (f" {each.unit}" if each.unit else "")
        else:
            values = ", ".join(each.categories)
        lines.append(
            f"| {each.name} | {values} | {'yes' if each.missing else 'no'} "
            f"| {importance.mean:.4f} ± {importance.std:.4f} |"
        )
    return "\n".join(lines) + (
        f"\n\nImportance is what {champion.score} on the test split loses when the feature's values are shuffled."
    )


def _parameters(champion: Report) -> str:
    lines = [f"- `{key}`: {value}" for key, value in champion.parameters.items()]
    if champion.search:
        lines.append(
            f"- found by {champion.search.method} search over {champion.search.candidates} candidates: "
            + ", ".join(f"`{key}`" for key in champion.search.best)
        )
    return "\n".join(lines) or "All defaults."


def _interval(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
