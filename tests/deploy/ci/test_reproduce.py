"""What a reproduction leaves for the steps after it. The review itself has its own tests; here a small one stands in."""

from __future__ import annotations

import re
import subprocess

import pytest

from deploy.ci import reproduce as command
from tests.deploy.ci.test_pipeline import Repository, deepen, repository, template
from tests.e2e.clone import ROOT

__all__ = ["repository", "template"]

REVIEW = """\
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--base")
parser.add_argument("--output", type=pathlib.Path)
parser.add_argument("--failure", type=pathlib.Path)
parser.add_argument("--artifact-url")
parser.add_argument("--no-production", action="store_true")
options = parser.parse_args()
if options.base == "nowhere":
    sys.exit("error: this clone has no revision 'nowhere'")
options.output.mkdir(parents=True)
said = options.failure.read_text() if options.failure else ""
place = pathlib.Path.cwd().name
(options.output / "review.md").write_text(f"<!-- mark -->\\n\\n{place}: {vars(options)}\\n{said}")
(options.output / "review.json").write_text(json.dumps({"passed": "worse" not in options.base}))
"""


@pytest.fixture
def reviewed(repository: Repository) -> Repository:
    """With a module `training.review` that takes the real one's arguments; the rest of the package comes from ROOT."""
    package = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    repository.clone.write(**{"training/__init__.py": package, "training/review.py": REVIEW})
    (repository.clone.folder / ".git/info/exclude").write_text("training\nbuild\n")
    return repository


def reproduce(
    repository: Repository, *arguments: str, start: bool = False
) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    output = repository.clone.folder.parent / "output"
    output.write_text("")
    arguments = ("--output", "build/reproduce", *arguments)
    variables = {"GITHUB_OUTPUT": str(output), "RUN_URL": "https://run/1"}
    if start:
        done = repository.start("deploy.ci.reproduce", *arguments, **variables)
    else:
        done = repository.run(command.main, *arguments, **variables)
    return done, dict(line.split("=", 1) for line in output.read_text().splitlines())


def text(repository: Repository, name: str = "comment.md") -> str:
    return (repository.clone.folder / "build/reproduce" / name).read_text()


def test_the_stand_in_takes_what_the_real_review_takes() -> None:
    source = (ROOT / "training/review/command.py").read_text()
    for option in ("--base", "--output", "--failure", "--artifact-url", "--no-production"):
        assert f'"{option}"' in source
        assert f'"{option}"' in REVIEW


@pytest.mark.slow
def test_a_change_gives_a_patch_and_the_reviews_text_and_verdict(reviewed: Repository) -> None:
    reviewed.clone.git("checkout", "--quiet", "-B", "change")
    reviewed.clone.git("branch", "--force", "main")
    deepen(reviewed)
    reviewed.clone.git("commit", "--quiet", "--all", "--message", "Deeper")
    done, outputs = reproduce(reviewed, "--base", "main")
    assert done.returncode == 0, done.stderr
    assert outputs == {"reproduced": "true", "changed": "true", "passed": "true"}
    assert "+++ b/dvc.lock" in text(reviewed, "lock.patch")
    assert "params.yaml" not in text(reviewed, "lock.patch").replace("      params.yaml:", "")
    assert "'base': 'main'" in text(reviewed)
    assert "'artifact_url': 'https://run/1'" in text(reviewed)
    assert "'no_production': False" in text(reviewed)
    # The same again: the lock is current, and the verdict is the review's.
    reviewed.clone.git("commit", "--quiet", "--all", "--message", "Lock")
    reviewed.clone.git("branch", "worse", "main")
    done, outputs = reproduce(reviewed, "--base", "worse")
    assert outputs == {"reproduced": "true", "changed": "false", "passed": "false"}
    assert text(reviewed, "lock.patch") == ""


def test_a_failed_pipeline_is_told_and_nothing_is_recorded(reviewed: Repository) -> None:
    reviewed.clone.write(**{"params.yaml": "rows: 10\ndepth: 0\n"})
    done, outputs = reproduce(reviewed, "--base", "main")
    assert done.returncode == 0, "the comment must be handed over"
    assert outputs == {"reproduced": "false", "changed": "false", "passed": "false"}
    assert "does not pass the gate: too shallow" in text(reviewed)
    assert text(reviewed, "lock.patch") == ""


@pytest.mark.slow
def test_a_fork_has_to_bring_its_own_lock(reviewed: Repository) -> None:
    done, outputs = reproduce(reviewed, "--base", "main", "--fork")
    assert outputs["passed"] == "true", done.stderr
    assert text(reviewed) == command.NO_CHANGES, "shared code that changes no bytes is one line"
    deepen(reviewed)
    done, outputs = reproduce(reviewed, "--base", "main", "--fork")
    assert "'no_production': True" in text(reviewed)
    assert outputs == {"reproduced": "true", "changed": "true", "passed": "false"}
    assert text(reviewed).startswith("> [!WARNING]\n> `dvc.lock` is not current")


@pytest.mark.slow
def test_without_a_review_its_error_is_the_comment(reviewed: Repository) -> None:
    done, outputs = reproduce(reviewed, "--base", "nowhere", start=True)
    assert done.returncode == 0
    assert outputs["passed"] == "false"
    assert "```text\nthis clone has no revision 'nowhere'\n```" in text(reviewed)


FURTHER = """\
stages:
  fetch:
    cmd: python ../../stage.py depth data/raw.txt
    outs: [data/raw.txt]
  select:
    cmd: python ../../stage.py depth reports/score.txt
    params: [depth]
    outs:
      - reports/score.txt: {cache: false}
"""


@pytest.fixture
def two(reviewed: Repository) -> Repository:
    """With a further model, which is committed, and a branch that starts there."""
    reviewed.clone.write(
        **{"models/wine/dvc.yaml": FURTHER, "models/wine/params.yaml": "name: wine\ndepth: 1\n"}
    )
    reviewed.dvc("repro", "--all-pipelines", "--quiet")
    reviewed.clone.git("add", "--all")
    reviewed.clone.git("commit", "--quiet", "--message", "Wine")
    reviewed.clone.git("checkout", "--quiet", "-B", "change")
    reviewed.clone.git("branch", "--force", "main")
    return reviewed


@pytest.mark.slow
def test_a_further_model_that_changed_has_the_comment(two: Repository) -> None:
    two.clone.write(**{"models/wine/params.yaml": "name: wine\ndepth: 2\n"})
    two.clone.git("commit", "--quiet", "--all", "--message", "Deeper")
    done, outputs = reproduce(two, "--base", "main")
    assert outputs == {"reproduced": "true", "changed": "true", "passed": "true"}, done.stderr
    assert "+++ b/models/wine/reports/score.txt" in text(two, "lock.patch")
    assert text(two).startswith("<!-- mark -->\n\n## wine\n\nwine: ")
    assert (two.clone.folder / "build/reproduce/review/wine/review.json").exists()


@pytest.mark.slow
def test_two_models_that_changed_have_a_section_each(two: Repository) -> None:
    deepen(two)
    two.clone.write(**{"models/wine/params.yaml": "name: wine\ndepth: 2\n"})
    two.clone.git("commit", "--quiet", "--all", "--message", "Deeper")
    _, outputs = reproduce(two, "--base", "main")
    assert outputs["passed"] == "true"
    first, *sections = text(two).split("\n## ")
    assert first == "<!-- mark -->\n"
    assert sections[1].startswith("wine\n\nwine: ")
    assert len(sections) == 2
    assert text(two).count("<!--") == 1


@pytest.mark.slow
def test_a_refresh_reads_the_sources_of_all_models_or_of_one(two: Repository) -> None:
    two.ran()
    _, outputs = reproduce(two, "--refresh", "--base", "HEAD")
    assert outputs["changed"] == "false"
    assert two.ran() == ["raw.txt", "raw.txt"]
    deepen(two)
    two.clone.git("commit", "--quiet", "--all", "--message", "Another model's change")
    _, outputs = reproduce(two, "--refresh", "--model", "wine", "--base", "HEAD")
    assert outputs == {"reproduced": "true", "changed": "false", "passed": "true"}
    assert two.ran() == ["raw.txt"]
    assert text(two) == command.NO_CHANGES
    done, outputs = reproduce(two, "--model", "x\n::error::y", "--base", "HEAD")
    assert outputs == {}
    assert done.stderr.startswith("error: there is no model 'x\\n::error::y': there are ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_model_whose_stage_failed_is_told(two: Repository) -> None:
    two.clone.write(**{"models/wine/params.yaml": "name: wine\ndepth: 0\n"})
    _, outputs = reproduce(two, "--base", "main")
    assert outputs == {"reproduced": "false", "changed": "false", "passed": "false"}
    assert text(two).startswith("<!-- mark -->\n\n## wine\n\nwine: ")
    assert "too shallow" in text(two)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--refresh", "--keep-going"])
def test_a_source_that_fails_keeps_no_other_model_from_fresh_data(two: Repository, option: str) -> None:
    """Of three models one cannot be fetched and one fails later; the change of the third is handed over."""
    source = two.clone.folder / "models/wine/dvc.yaml"
    failing = source.read_text().replace("stage.py depth data/raw.txt", "stage.py depth data/raw.txt; exit 3")
    later = source.read_text().replace("stage.py depth reports", "stage.py none reports; exit 4; #")
    two.clone.write(
        **{
            "models/late/dvc.yaml": later,
            "models/late/params.yaml": "name: late\ndepth: 1\n",
            "models/wine/dvc.yaml": failing,
            "models/zebra/dvc.yaml": FURTHER,
            "models/zebra/params.yaml": "name: zebra\ndepth: 3\n",
        }
    )
    two.clone.git("add", "--all")
    two.clone.git("commit", "--quiet", "--message", "More")
    done, outputs = reproduce(two, option, "--base", "HEAD")
    assert done.returncode == 0, done.stderr
    assert outputs == {"reproduced": "false", "changed": "true", "passed": "false"}
    patch = text(two, "lock.patch")
    assert "+++ b/models/zebra/dvc.lock" in patch
    assert "models/wine" not in patch
    assert "models/late" not in patch, "a lock of half a model is not current"
    comment = text(two)
    assert re.findall("^## (.*)", comment, re.MULTILINE) == ["late", "wine", "zebra"]
    assert "failed to reproduce 'models/wine/dvc.yaml:fetch'" in comment
    assert "exited with 4" in comment


@pytest.mark.slow
def test_stages_side_by_side_give_the_same_results_and_errors(two: Repository) -> None:
    deepen(two)
    two.clone.write(**{"models/wine/params.yaml": "name: wine\ndepth: 2\n"})
    done, outputs = reproduce(two, "--base", "main", "--jobs", "2", start=True)
    assert outputs == {"reproduced": "true", "changed": "true", "passed": "true"}, done.stderr + done.stdout
    patch = text(two, "lock.patch")
    two.clone.git("checkout", "--quiet", "dvc.lock", "models/wine/dvc.lock", "models/wine/reports")
    _, outputs = reproduce(two, "--base", "main")
    assert text(two, "lock.patch") == patch
    two.clone.write(**{"models/wine/params.yaml": "name: wine\ndepth: 0\n"})
    _, outputs = reproduce(two, "--base", "main", "--jobs", "2", start=True)
    assert outputs == {"reproduced": "false", "changed": "false", "passed": "false"}
    assert text(two).startswith("<!-- mark -->\n\n## wine\n\nwine: ")
    assert "wine:select | error: the tree won but does not pass the gate: too shallow\n" in text(two)
