"""A tracker that was off gets what it missed: the results of earlier commits, from git and DVC."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tests.training.repository import Repository
from tests.training.track.test_mlflow import client, runs_of, track
from tests.training.track.wandb_records import Recorded, read_run
from training.production.revisions import Revision
from training.track.plan import Plan, read_plan

pytestmark = pytest.mark.slow
LONG = pytest.mark.long("tests/training/track", "training/production", "training/track")


@pytest.fixture(scope="module")
def made(committed_iris: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Plan]]:
    """Three commits with results of their own, and one without; by commit what each had for a tracker."""
    root = tmp_path_factory.mktemp("history") / "iris"
    shutil.copytree(committed_iris, root, symlinks=True)
    plans = {}
    with pytest.MonkeyPatch.context() as monkeypatch, chdir(root):
        repository = Repository(root, monkeypatch)
        repository.change(track__to=[])
        for depth in (1, 2, 3):
            repository.only("decision_tree", max_depth=depth)
            repository.retrain()
            repository.record()
            plans[repository.commit(f"depth {depth}")] = read_plan("iris")
        assert "tracking is off" in track(root)
        (root / "README.md").write_text("Other words.\n")
        repository.commit("words")
    return root, plans


@pytest.fixture
def history(
    made: tuple[Path, dict[str, Plan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Repository, dict[str, Plan]]:
    shutil.copytree(made[0], tmp_path / "iris", symlinks=True)
    monkeypatch.chdir(tmp_path / "iris")
    return Repository(tmp_path / "iris", monkeypatch), made[1]


def shown(runs: list[Any]) -> dict[str, Mapping[str, float]]:
    return {each.data.tags["espalier.id"]: each.data.metrics for each in runs}


def test_everything_that_was_missed_is_recorded_once(history: tuple[Repository, dict[str, Plan]]) -> None:
    repository, plans = history
    said = track(repository.root, "--to", "mlflow", "--since", next(iter(plans)))
    lines = said.splitlines()
    # The present results, which are those of the newest commit, and then each commit, the newest first.
    assert [each.split(":")[0] for each in lines[1:]] == [each[:10] for each in reversed(plans)]
    assert [each.split(", ")[1].split()[0] for each in lines] == ["3", "0", "2", "2"]
    found = shown(runs_of(client(repository.root)))
    expected = {run.id: run for plan in plans.values() for run in plan.runs}
    assert found.keys() == expected.keys()
    for id, run in expected.items():
        numbers = {key: value for key, value in run.summary.items() if isinstance(value, float)}
        assert numbers.items() <= found[id].items()
    # Those of earlier commits are as old as these: 2026-01-01, as `Repository` dates them.
    made = {each.data.tags["espalier.id"]: each.info for each in runs_of(client(repository.root))}
    present = {run.id for run in plans[list(plans)[-1]].runs}
    for id, info in made.items():
        assert (info.start_time == info.end_time == 1_767_225_600_000) is (id not in present)
    # The data is the same in all of them; its run stays in the last comparison.
    newest = plans[list(plans)[-1]]
    (data,) = [each for each in runs_of(client(repository.root)) if each.data.tags["job_type"] == "data"]
    assert newest.group in data.data.tags.values()

    again = track(repository.root, "--to", "mlflow", "--since", next(iter(plans)))
    assert all(", 0 of them now" in each for each in again.splitlines())
    assert shown(runs_of(client(repository.root))) == found
    assert repository.git("status", "--porcelain") == ""


@LONG
def test_the_alias_of_the_champion_stays_with_the_present_one(
    history: tuple[Repository, dict[str, Plan]],
) -> None:
    repository, plans = history
    track(repository.root, "--to", "wandb", "--since", next(iter(plans)))
    artifacts = [
        each for run in recorded(repository).values() for each in run.artifacts if each.name == "iris"
    ]
    assert len(artifacts) == len(plans)
    (champion,) = [each for each in artifacts if "champion" in each.aliases]
    assert repository.version() in champion.aliases


def test_what_is_lost_or_replaced_is_named_and_the_rest_is_recorded(
    history: tuple[Repository, dict[str, Plan]],
) -> None:
    repository, plans = history
    first, second, third = plans
    remote = repository.remote()
    repository.forget()
    model = Revision(second).outputs["model"].md5
    (remote / "files/md5" / model[:2] / model[2:]).unlink()
    report = Revision(first).outputs["candidates/decision_tree/report.json"].md5
    (remote / "files/md5" / report[:2] / report[2:]).write_text("{}")
    said = track(repository.root, "--to", "wandb", "--since", first).splitlines()
    lost, replaced = [each for each in said if each.startswith("warning")]
    assert lost.startswith(f"warning: {second[:10]}: not tracked: model")
    assert replaced.startswith(f"warning: {first[:10]}: not tracked: ")
    assert "nothing of it was kept" in replaced
    assert recorded(repository).keys() == {run.id for run in plans[third].runs}


@LONG
def test_results_of_another_form_and_a_commit_before_the_first(
    history: tuple[Repository, dict[str, Plan]],
) -> None:
    repository, plans = history
    for name, other in (("reports/leaderboard.json", '{"rows": 1}'), ("dvc.lock", "stages: {}")):
        content = Path(name).read_text()
        Path(name).write_text(other)
        Path("dvc.lock").write_text(Path("dvc.lock").read_text() + "# changed\n")
        repository.commit(f"break {name}")
        repository.git("checkout", "-q", "HEAD~1", "--", ".")
        assert Path(name).read_text() == content
        repository.commit("mend it")
    broken = repository.git("log", "--format=%H", "--grep", "^break").split()
    repository.git("checkout", "-q", "--orphan", "other")
    repository.git("rm", "-q", "-r", "--cached", ".")
    repository.git("commit", "-q", "--allow-empty", "-m", "empty")
    empty = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "-q", "--force", "main")
    said = track(repository.root, "--to", "wandb", "--since", empty).splitlines()
    warnings = [each for each in said if each.startswith("warning")]
    assert [each.split(": ")[1] for each in warnings] == [each[:10] for each in (*broken, empty)]
    assert all("not tracked" in each for each in warnings)
    assert recorded(repository).keys() >= {run.id for plan in plans.values() for run in plan.runs}


def recorded(repository: Repository) -> dict[str, Recorded]:
    runs = [read_run(folder) for folder in repository.root.glob("wandb/offline-run-*")]
    return {each.run.run_id: each for each in runs}
