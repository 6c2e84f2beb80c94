"""The image is built, started, asked, pushed and pulled; what cannot be built is refused by name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract import Bundle, read_bundle, sha256, version_of, write_bundle
from common import models
from deploy.errors import DeployError
from deploy.image.__main__ import Record, checked, main, read_record, record_file
from deploy.image.ages import Ages, read_ages
from deploy.image.builders import LAYER_EPOCH, Docker, choose
from deploy.image.source import ImageError, bundle_hash_on_disk, declared_base, read_source
from deploy.inputs import hash_in_lock
from deploy.registry import Reference, Registry
from deploy.rehearsal import containers
from tests.bundles import mixed_row, number_row, write_mixed_bundle, write_number_bundle
from tests.e2e.clone import clone
from tests.tools import free_port, require, require_containers

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000
LONG = pytest.mark.long(
    ".dockerignore",
    "app",
    "common",
    "deploy/ci/steps.py",
    "deploy/git.py",
    "deploy/image",
    "deploy/inputs.py",
    "deploy/registry.py",
    "deploy/rehearsal/containers.py",
    "pyproject.toml",
    "uv.lock",
)
Tagged = Callable[..., Path]
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")


def make_clone(destination: Path) -> Path:
    """A clone of what is here and a further model, `plants`: small bundles of known answers that its dvc.locks name."""
    clone(destination)
    plants = destination / "models/plants"
    shutil.copytree(destination / "models/penguins", plants)
    (plants / "params.yaml").write_text("name: plants\n")
    write_number_bundle(destination / "model")
    write_mixed_bundle(plants / "model")
    for folder in (destination, plants):
        lock, named = folder / "dvc.lock", bundle_hash_on_disk(folder / "model")
        text, count = re.subn(
            r"(- path: model\n\s+hash: md5\n\s+md5: )\S+", rf"\g<1>{named}", lock.read_text()
        )
        assert count
        lock.write_text(text)
    git(destination, "add", "-A")
    # Times of commits are whole seconds; this one is later than the one before it, as it would be in life.
    later = {**os.environ, "GIT_COMMITTER_DATE": f"@{int(time.time()) + 1} +0000"}
    subprocess.run([*GIT, "commit", "-qam", "Another bundle"], cwd=destination, check=True, env=later)
    return destination


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, unchanged by the tests."""
    return make_clone(tmp_path_factory.mktemp("first") / "clone")


@pytest.fixture
def spare(first: Path, tmp_path: Path) -> Path:
    """A clone to spoil."""
    return shutil.copytree(first, tmp_path / "spare", symlinks=True)


# ------------------------------------------------------------------------------------- files and refusals


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [require("hadolint"), "app/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_starts_from_one_base_that_is_pinned() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", (ROOT / "app/Dockerfile").read_text(), re.MULTILINE)
    assert stages[0][1] == "base"
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", declared_base(ROOT))
    assert stages[0][0] == declared_base(ROOT)
    named = {stage for _, stage in stages}
    assert {image for image, _ in stages[1:]} <= named


def test_uv_is_pinned_by_digest() -> None:
    requirements = [
        line for line in (ROOT / "app/uv.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    assert re.fullmatch(r"uv==[\d.]+ \\", requirements[0])
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in requirements[1:])
    assert len(requirements) > 2


@pytest.mark.parametrize(
    "reference",
    [
        "localhost/espalier:0123abc",
        "127.0.0.1:5000/espalier:x",
        "111122223333.dkr.ecr.eu-central-1.amazonaws.com/espalier:0123abc",
        "ghcr.io/espalier-ml/espalier:v1.0_b",
    ],
)
def test_a_name_with_registry_and_tag_is_taken(reference: str) -> None:
    assert checked(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        "espalier",
        "espalier:x",
        "ghcr.io/espalier",
        "GHCR.io/espalier:x",
        "a/b:x y",
        "a/b:-x",
        "a/b:x@sha256:1",
    ],
)
def test_another_is_refused(reference: str) -> None:
    with pytest.raises(ImageError, match="REGISTRY/NAME:TAG"):
        checked(reference)


def test_says_which_builders_there_could_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ImageError,
        match=r"docker: not installed; podman: not installed; buildah: not installed.*install docker, podman or",
    ):
        choose(None)
    with pytest.raises(ImageError, match=r"^buildah: not installed: leave --tool out"):
        choose("buildah")


def test_says_why_a_builder_that_is_there_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\necho >&2 'Error: no room'\nexit 125\n")
    podman.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match=r"podman: Error: no room; buildah: not installed"):
        choose(None)


def test_without_a_bundle_nothing_is_built(spare: Path) -> None:
    shutil.rmtree(spare / "model")
    with pytest.raises(ImageError, match=r"no model bundle: .*model\.json.*`make pull TARGETS=model`"):
        main(["build"], spare)
    assert not (spare / "build").exists()


def test_a_bundle_that_was_edited_is_refused(spare: Path) -> None:
    file = spare / "model" / "model.json"
    file.write_text(file.read_text().replace("setosa", "Setosa"))
    with pytest.raises(ImageError, match="does not match its own digest"):
        main(["build"], spare)


def test_a_model_that_is_not_there_is_corrected(spare: Path) -> None:
    with pytest.raises(models.UnknownModelError, match="no model 'plant': did you mean plants"):
        main(["build", "--model", "plant"], spare)
    shutil.rmtree(spare / "models/plants/model")
    with pytest.raises(
        ImageError, match=r"no model bundle: .*plants.*`make pull TARGETS=models/plants/model`"
    ):
        main(["build", "--model", "plants"], spare)


def test_a_bundle_of_another_model_is_refused(spare: Path) -> None:
    shutil.rmtree(spare / "models/plants/model")
    shutil.copytree(spare / "model", spare / "models/plants/model")
    with pytest.raises(
        ImageError, match="models/plants/model is a bundle of iris, and the model is called plants"
    ):
        main(["build", "--model", "plants"], spare)


def test_one_name_is_not_for_several_images(spare: Path) -> None:
    with pytest.raises(ImageError, match="localhost/espalier:x is the name of one image"):
        main(["build", "--model", "all", "--tag", "localhost/espalier:x"], spare)


def test_a_bundle_of_links_is_refused(spare: Path) -> None:
    """DVC can be set to link its cache; a builder would copy the links and not what is behind them."""
    file = spare / "model" / "model.onnx"
    file.rename(spare / "elsewhere")
    file.symlink_to(spare / "elsewhere")
    with pytest.raises(ImageError, match=r"model\.onnx is a link.*dvc unprotect"):
        main(["build"], spare)


def test_outside_of_a_clone_is_said(spare: Path) -> None:
    shutil.rmtree(spare / ".git")
    with pytest.raises(
        ImageError, match=r"cannot tell the commit of .*not a git repository.*build in a clone"
    ):
        main(["build"], spare)


def test_a_clean_clone_has_its_commit_as_revision(first: Path) -> None:
    source = read_source(first)
    assert source.differences == ()
    assert source.revision == source.commit
    assert source.epoch == int(git(first, "log", "-1", "--format=%ct"))


def test_a_change_that_stays_out_of_the_image_is_none(spare: Path) -> None:
    (spare / "README.md").write_text("other")
    (spare / "app" / "__pycache__").mkdir(exist_ok=True)
    (spare / "app" / "__pycache__" / "x.pyc").write_bytes(b"")
    assert read_source(spare).differences == ()


@pytest.mark.parametrize("name", ["app/main.py", "app/new.py", "uv.lock", "pyproject.toml", ".dockerignore"])
def test_a_change_of_an_input_makes_it_dirty(spare: Path, name: str) -> None:
    with (spare / name).open("a") as file:
        file.write("\n")
    source = read_source(spare)
    assert source.differences == (name,)
    assert source.revision == f"{source.commit}-dirty"
    with pytest.raises(
        ImageError, match=f"not as in commit {source.commit[:12]}: {name}; commit or take back"
    ):
        main(["build", "--strict"], spare)


def test_a_bundle_that_dvc_lock_does_not_name_makes_it_dirty(spare: Path) -> None:
    write_number_bundle(spare / "model", out_of_range="accept")
    assert read_source(spare).differences == ("model",)
    assert read_source(spare, "plants").differences == ()
    shutil.copytree(spare / "model", spare / "models/plants/model", dirs_exist_ok=True)
    assert read_source(spare, "plants").differences == ("models/plants/model",)


def test_the_environment_may_set_the_time(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    source = read_source(first)
    assert source.labels("base")["org.opencontainers.image.created"] == "1970-01-02T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(ImageError, match="SOURCE_DATE_EPOCH=today"):
        read_source(first)


def test_there_is_nothing_to_push_before_a_build(spare: Path) -> None:
    with pytest.raises(ImageError, match=r"build/images/iris\.json is not there: `make image MODEL=iris`"):
        main(["push"], spare)
    record_file("iris", spare).parent.mkdir(parents=True)
    record_file("iris", spare).write_text("{")
    with pytest.raises(ImageError, match="cannot be read"):
        main(["push"], spare)


def test_the_hash_of_a_directory_is_dvcs(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ü").write_text("2")
    (tmp_path / "a").write_text("1")
    from dvc.repo import Repo

    work = tmp_path.parent / f"{tmp_path.name}-dvc"
    work.mkdir()
    with Repo.init(str(work), no_scm=True) as repo:
        shutil.copytree(tmp_path, work / "model")
        (output,) = repo.add([str(work / "model")])
        assert bundle_hash_on_disk(work / "model") == output.outs[0].hash_info.value


# ------------------------------------------------------------------------------ when model and data were made


class Line:
    """A repository whose `dvc.lock` changes at known times, a day apart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._time = 1_700_000_000
        root.mkdir()
        git(root, "init", "-q", "-b", "main")

    def commit(
        self, model: str | None = None, data: str | None = None, *, merge: str | None = None, at: str = ""
    ) -> int:
        """Commit a lock with these hashes (anything else if None); returns the time."""
        self._time += 86400
        if model or data:
            lock = self.root / at / "dvc.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_text(lock_of(model, data))
        else:
            (self.root / "README").write_text(str(self._time))
        if merge:
            subprocess.run([*GIT, "merge", "-q", "--no-commit", "--no-ff", merge], cwd=self.root, check=True)
        git(self.root, "add", "-A")
        when = f"{self._time} +0000"
        environment = {**os.environ, "GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when}
        subprocess.run([*GIT, "commit", "-qm", "x"], cwd=self.root, check=True, env=environment)
        return self._time


def lock_of(model: str | None, data: str | None) -> str:
    """As DVC writes it: the data is an output of one stage and a dependency of the next."""
    outs = {"fetch": ("data/raw.parquet", data), "select": ("model", model)}
    stages = {
        name: {"cmd": name, "outs": [{"path": path, "hash": "md5", "md5": hash_}]}
        for name, (path, hash_) in outs.items()
        if hash_
    }
    if data:
        stages["prepare"] = {"cmd": "p", "deps": [{"path": "data/raw.parquet", "hash": "md5", "md5": data}]}
    return json.dumps({"schema": "2.0", "stages": stages}, indent=1)


A, B, C, D = (letter * 32 for letter in "abcd")


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "line")


def test_model_and_data_are_as_old_as_the_commits_that_brought_them(line: Line) -> None:
    line.commit(A, C)
    line.commit(B, C)
    line.commit(A, C)
    data = line.commit(B, D)
    line.commit()
    model = line.commit(A, D)
    line.commit()
    assert read_ages(line.root) == Ages(model, data)


def test_the_ages_of_a_further_model_are_its_own(line: Line) -> None:
    line.commit(A, C)
    data = line.commit(A, C, at="models/churn")
    model = line.commit(B, C, at="models/churn")
    line.commit(B, D)
    assert read_ages(line.root, "churn") == Ages(model, data)
    assert read_ages(line.root, "wine") == Ages(None, None)


def test_what_stayed_from_the_first_commit_on_is_as_old_as_it(line: Line) -> None:
    first = line.commit(A, C)
    line.commit()
    assert read_ages(line.root) == Ages(first, first)


def test_a_stage_that_no_longer_reads_it_makes_nothing_younger(line: Line) -> None:
    """The hash is then in the lock less often, by a commit that neither brought the data nor took it."""
    first = line.commit(A, C)
    lock = json.loads((line.root / "dvc.lock").read_text())
    del lock["stages"]["prepare"]
    (line.root / "dvc.lock").write_text(json.dumps(lock, indent=1))
    line.commit()
    assert read_ages(line.root) == Ages(first, first)


def test_a_merge_brings_what_its_branch_made(line: Line) -> None:
    """On main it is there from the merge on, however long the branch was worked on."""
    line.commit(A, C)
    git(line.root, "switch", "-qc", "branch")
    line.commit(B, C)
    git(line.root, "switch", "-q", "main")
    line.commit()
    merged = line.commit(merge="branch")
    assert read_ages(line.root).model == merged


def test_without_an_output_there_is_no_time(line: Line) -> None:
    line.commit()
    assert read_ages(line.root) == Ages(None, None)
    model = line.commit(A)
    assert read_ages(line.root) == Ages(model, None)


def test_a_shallow_clone_tells_what_is_in_it_and_names_what_is_not(line: Line, tmp_path: Path) -> None:
    line.commit(A, C)
    line.commit(A, D)
    data = line.commit(A, C)
    model = line.commit(B, C)

    def cloned(depth: int) -> Ages:
        folder = tmp_path / f"depth-{depth}"
        subprocess.run(
            ["git", "clone", "-q", f"--depth={depth}", f"file://{line.root}", str(folder)], check=True
        )
        return read_ages(folder)

    assert cloned(1) == Ages(None, None, ("the model", "its data"))
    assert cloned(2) == Ages(model, None, ("its data",))
    assert cloned(3) == Ages(model, data)
    assert cloned(4) == Ages(model, data)


@pytest.mark.slow
@given(history=st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from([C, D])), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_the_age_is_that_of_the_last_change_whatever_came_before(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str]]
) -> None:
    line = Line(tmp_path_factory.mktemp("history") / "line")
    since: dict[int, tuple[str, int]] = {}
    for hashes in history:
        (line.root / "other").write_text(str(line.commit()))
        time = line.commit(*hashes)
        for index, hash_ in enumerate(hashes):
            if since.get(index, ("", 0))[0] != hash_:
                since[index] = (hash_, time)
    assert read_ages(line.root) == Ages(since[0][1], since[1][1])


def test_the_image_says_how_old_model_and_data_are(first: Path) -> None:
    source = read_source(first)
    # The clone's own last commit brought its small bundle; the data came with the project.
    assert source.ages.model == source.epoch
    assert source.ages.data is not None
    assert source.ages.data < source.epoch
    arguments = {"MODEL_CREATED": str(source.ages.model), "DATA_CREATED": str(source.ages.data)}
    assert source.build_arguments() == {"MODEL": "model", **arguments}
    assert source.labels("base")["dev.espalier.data.created"] == shown(source.ages.data)
    declared = re.findall(r"^ARG (\w+)=", (ROOT / "app/Dockerfile").read_text(), re.MULTILINE)
    # The one that no model decides is changed in the Dockerfile.
    assert {*source.build_arguments(), "FEATURES"} == set(declared)
    assert source.build_arguments()["MODEL"] == "model"
    other = read_source(first, "plants")
    assert other.build_arguments()["MODEL"] == "models/plants/model"
    assert other.labels("base")["dev.espalier.model.name"] == "plants"


@pytest.mark.slow
def test_a_shallow_clone_is_refused_when_strict_and_else_builds_without(
    spare: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{spare}", str(shallow)], check=True)
    shutil.copytree(spare / "model", shallow / "model")
    with pytest.raises(
        ImageError, match=r"the age of the model and its data is not in this clone: .*fetch-depth"
    ):
        main(["build", "--strict"], shallow)
    assert "created" not in {
        name.rpartition(".")[2] for name in read_source(shallow).labels("base") if "espalier" in name
    }
    assert read_source(shallow).build_arguments() == {
        "MODEL": "model",
        "MODEL_CREATED": "",
        "DATA_CREATED": "",
    }
    # As far as the builder, which is none here.
    monkeypatch.setenv("PATH", f"{git_only(tmp_path)}")
    with pytest.raises(ImageError, match="nothing here builds images"):
        main(["build"], shallow)
    assert "warning: the age of the model and its data" in capsys.readouterr().err


def test_a_bundle_of_no_commit_has_no_age(spare: Path) -> None:
    """Not even when DVC has written down its hash: an image of it must not pass for the commit's."""
    write_number_bundle(spare / "model", out_of_range="accept")
    lock, text = spare / "dvc.lock", (spare / "dvc.lock").read_text()
    former = hash_in_lock(text)
    assert former is not None
    lock.write_text(text.replace(former, bundle_hash_on_disk(spare / "model")))
    source = read_source(spare)
    assert source.differences == ("model",)
    assert source.ages == Ages(None, None)


def git_only(folder: Path) -> Path:
    """A folder of programs with git in it and nothing else."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git") or "")
    return programs


def shown(epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


# ------------------------------------------------------------------------------------------ the real image


@dataclass(frozen=True)
class Built:
    clone: Path
    registry: str
    record: Record

    @property
    def reference(self) -> str:
        return self.record.reference


@pytest.fixture(scope="module")
def built(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The image of a clone, in a storage of its own, with a registry to push it to."""
    require_containers()
    folder = tmp_path_factory.mktemp("containers")
    with containers.storage(folder / "storage"), containers.registry(folder / "registry") as address:
        main(["build", "--strict", "--tag", f"{address}/espalier:{git(first, 'rev-parse', 'HEAD')}"], first)
        yield Built(first, address, read_record("iris", first))


@pytest.fixture(scope="module")
def running(built: Built) -> Iterator[containers.Container]:
    with containers.container(built.reference) as container:
        yield container


@pytest.fixture(scope="module")
def tree(built: Built) -> Iterator[Path]:
    """The image's files."""
    mounted = Path(containers.call("podman", "image", "mount", built.reference))
    yield mounted
    containers.call("podman", "image", "unmount", built.reference)


@LONG
def test_the_record_says_what_was_built(built: Built) -> None:
    record, source = built.record, read_source(built.clone)
    assert record.revision == source.commit
    assert record.reference.endswith(f":{source.commit}")
    assert record.model_digest == source.manifest.digest
    assert record.tool == choose(None).name
    assert record.pushed is None
    shown = inspect_image(built.reference)
    assert record.id == f"sha256:{shown['Id']}"
    assert record.digest == shown["Digest"]
    assert abs(record.bytes - shown["Size"]) < MEGABYTE
    assert shown["Created"] == shown["Labels"]["org.opencontainers.image.created"]


@LONG
def test_labels_say_where_it_comes_from(built: Built) -> None:
    source = read_source(built.clone)
    project = tomllib.loads((built.clone / "pyproject.toml").read_text())["project"]
    assert source.ages.model is not None
    assert source.ages.data is not None
    assert inspect_image(built.reference)["Labels"] == {
        "org.opencontainers.image.title": "espalier",
        "org.opencontainers.image.description": "A tabular model, served over HTTP",
        "org.opencontainers.image.licenses": project["license"],
        "org.opencontainers.image.source": "https://github.com/espalier-ml/espalier",
        "org.opencontainers.image.revision": source.commit,
        "org.opencontainers.image.version": project["version"],
        "org.opencontainers.image.created": shown(source.epoch),
        "org.opencontainers.image.base.name": containers.BASE,
        "dev.espalier.model.name": source.manifest.name,
        "dev.espalier.model.version": source.manifest.version,
        "dev.espalier.model.digest": source.manifest.digest,
        "dev.espalier.model.created": shown(source.ages.model),
        "dev.espalier.data.created": shown(source.ages.data),
    }


@LONG
def test_the_configuration_is_what_a_cluster_expects(built: Built) -> None:
    config = inspect_image(built.reference)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/app/.venv/bin/python", "-m", "app"]
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert {"ESPALIER_HOST=0.0.0.0", "ESPALIER_MODEL_DIR=/app/model"} <= set(config["Env"])
    assert not config.get("Cmd")
    ages = read_source(built.clone).ages
    assert {f"ESPALIER_MODEL_CREATED={ages.model}", f"ESPALIER_DATA_CREATED={ages.data}"} <= set(
        config["Env"]
    )


@LONG
def test_it_is_small(built: Built) -> None:
    over = inspect_image(built.reference)["Size"] - inspect_image(containers.BASE)["Size"]
    print(f"{over / MEGABYTE:.0f} MB over the base")
    assert over < 170 * MEGABYTE, "the issue grants 250; it was 151 when this was written"


@LONG
def test_a_later_commit_with_a_new_model_changes_the_last_layer_alone(built: Built, spare: Path) -> None:
    """What a cluster pulls for a new model is some kilobytes, and not the libraries with a new date."""
    write_number_bundle(spare / "model", out_of_range="accept")
    commit = ("commit", "-q", "--allow-empty", "--date=2030-01-01T00:00:00Z", "--message=Another model")
    environment = {**os.environ, "GIT_COMMITTER_DATE": "2030-01-01T00:00:00Z"}
    subprocess.run([*GIT, *commit], cwd=spare, check=True, env=environment)
    reference = f"{built.registry}/later:x"
    main(["build", "--tag", reference], spare)
    before, after = inspect_image(built.reference), inspect_image(reference)
    assert after["Created"] == "2030-01-01T00:00:00Z"
    layers = after["RootFS"]["Layers"]
    assert layers[:-1] == before["RootFS"]["Layers"][:-1]
    assert layers[-1] != before["RootFS"]["Layers"][-1]
    history = containers.call("podman", "history", "--format={{.Size}} {{.CreatedBy}}", reference)
    sizes = [line.split(" ", 2)[:2] for line in history.splitlines() if "COPY" in line]
    model, code, libraries = (float(size) * {"kB": 1_000, "MB": MEGABYTE}[unit] for size, unit in sizes)
    assert model < 100_000 < code < 2 * MEGABYTE < libraries


@pytest.fixture(scope="module")
def further(built: Built) -> Record:
    """The image of the further model, from the same commit and pushed after the first model's."""
    main(["push"], built.clone)
    reference = f"{built.registry}/espalier:plants-{built.record.revision}"
    main(["build", "--strict", "--model", "plants", "--tag", reference], built.clone)
    main(["push", "--model", "plants"], built.clone)
    return read_record("plants", built.clone)


@LONG
def test_images_of_two_models_differ_in_the_last_layer_and_in_what_names_the_model(
    built: Built, further: Record
) -> None:
    first, second = inspect_image(built.reference), inspect_image(further.reference)
    layers, others = first["RootFS"]["Layers"], second["RootFS"]["Layers"]
    assert layers[:-1] == others[:-1]
    assert layers[-1] != others[-1]
    assert first["Created"] == second["Created"]
    ages = ("ESPALIER_MODEL_CREATED=", "ESPALIER_DATA_CREATED=")
    configurations = [each["Config"] for each in (first, second)]
    for config in configurations:
        config["Env"] = [each for each in config["Env"] if not each.startswith(ages)]
        config["Labels"] = {
            name: value for name, value in config["Labels"].items() if not name.startswith("dev.espalier.")
        }
    assert configurations[0] == configurations[1]
    assert second["Labels"]["dev.espalier.model.name"] == "plants"
    assert second["Labels"]["dev.espalier.model.digest"] == further.model_digest != built.record.model_digest


@LONG
def test_a_second_model_pushes_kilobytes(built: Built, further: Record) -> None:
    """A registry has the layers of the first; the second's are its bundle and its configuration."""
    repository = f"http://{built.registry}/v2/espalier"
    first, second = (manifest_of(repository, each) for each in (read_record("iris", built.clone), further))
    there = {layer["digest"] for layer in first["layers"]}
    new = [each for each in (*second["layers"], second["config"]) if each["digest"] not in there]
    shared = sum(layer["size"] for layer in second["layers"] if layer["digest"] in there)
    pushed = sum(each["size"] for each in new)
    print(
        f"{len(new) - 1} of {len(second['layers'])} layers, {pushed} bytes; {shared} bytes are there already"
    )
    assert len(new) == 2
    assert pushed < 20_000
    assert shared > 100 * pushed


@LONG
def test_the_image_of_a_further_model_serves_it(further: Record) -> None:
    with containers.container(further.reference) as container:
        row = mixed_row(12.5, 3, "clay")
        assert ask(f"{container.url}/predict", row.values)["label"] == row.label
        assert ask(f"{container.url}/model")["name"] == "plants"


@LONG
def test_only_what_the_service_needs_is_installed(tree: Path) -> None:
    found = importlib.metadata.distributions(path=[str(site_packages(tree))])
    installed = {normal(distribution.name) for distribution in found}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {requirement(text) for text in project["project"]["dependencies"]}
    groups = {requirement(text) for group in project["dependency-groups"].values() for text in group}
    assert wanted <= installed
    assert not installed & (groups - wanted)
    assert not installed & {"pip", "setuptools", "uv", "wheel", "scikit-learn", "onnx"}


@LONG
def test_no_tool_to_install_or_build_is_there(tree: Path) -> None:
    programs = re.compile(r"(uv|uvx|pip[\d.]*|gcc|g\+\+|cc|c\+\+|ld|make|git|curl|wget)(-[\d.]+)?")
    folders = ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "app/.venv/bin"]
    there = {path.name for folder in folders for path in (tree / folder).iterdir()}
    assert "python3" in there
    assert not {name for name in there if programs.fullmatch(name)}
    libraries = [*tree.glob("usr/lib/python3*"), *tree.glob("usr/local/lib/python3*")]
    assert libraries
    for library in libraries:
        assert not [*library.rglob("ensurepip"), *library.rglob("site-packages/pip*")]


@LONG
def test_app_holds_the_service_and_the_bundle_and_nothing_else(built: Built, tree: Path) -> None:
    expected = set(git(built.clone, "ls-files", "app").splitlines()) - {"app/Dockerfile", "app/uv.txt"}
    expected |= {"model/model.json", "model/model.onnx"}
    files = {
        path.relative_to(tree / "app").as_posix()
        for path in (tree / "app").rglob("*")
        if path.is_file() and ".venv" not in path.parts and "__pycache__" not in path.parts
    }
    assert files == expected
    assert not [path for path in (tree / "app" / ".venv").rglob("tests") if path.is_dir()]
    programs = {path.name for path in (tree / "app" / ".venv" / "bin").iterdir()}
    assert programs == {"python", "python3", "python3.13"}


@LONG
def test_the_service_can_read_its_files_and_change_none(tree: Path) -> None:
    for path in (tree / "app").rglob("*"):
        if not path.is_symlink():
            shown = path.stat()
            assert (shown.st_uid, shown.st_gid) == (0, 0), path
            assert shown.st_mode & 0o777 == (0o755 if path.is_dir() or shown.st_mode & 0o100 else 0o644), path


@LONG
def test_nothing_is_compiled_at_start(running: containers.Container) -> None:
    modules = "app.main, app.server, app.supervisor, app.healthcheck, app.__main__"
    done = running.execute("python", "-v", "-c", f"import {modules}")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\.pyc matches ", done.stderr)) > 300
    assert re.findall(r"^# code object from .*\.py\b.*", done.stderr, re.MULTILINE) == []


@LONG
def test_answers_with_nothing_to_write_to_and_no_capabilities(
    built: Built, running: containers.Container
) -> None:
    row = number_row((5.1, 3.5, 1.4, 0.2))
    answer = ask(f"{running.url}/predict", row.values)
    assert answer["label"] == row.label
    assert answer["probabilities"] == pytest.approx(row.probabilities)

    labels = inspect_image(built.reference)["Labels"]
    card = ask(f"{running.url}/model")
    with urllib.request.urlopen(f"{running.url}/metrics", timeout=10) as metrics:
        assert b"model_created_timestamp_seconds 1.7" in metrics.read()
    assert card["digest"] == labels["dev.espalier.model.digest"] == built.record.model_digest
    assert card["version"] == labels["dev.espalier.model.version"]

    status = running.execute("cat", "/proc/1/status").stdout
    assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
    assert re.search(r"^Gid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE) == ["0" * 16] * 5
    for folder in ("/app", "/tmp", "/"):
        refused = running.execute("python", "-c", f"open('{folder.rstrip('/')}/x', 'w')")
        assert "Read-only file system" in refused.stderr


@LONG
def test_says_nothing_to_anybody(running: containers.Container) -> None:
    """With its telemetry on, onnxruntime would complain in plain text that it cannot write a device id."""
    assert [json.loads(line)["level"] for line in running.log().splitlines()] == ["info"]


@LONG
def test_is_healthy_until_told_to_stop_then_ends_with_0(built: Built) -> None:
    with containers.container(built.reference, drain_seconds=2) as container:
        assert health(container) == 0
        told = time.monotonic()
        container.signal("TERM")
        while health(container) == 0:
            assert time.monotonic() < told + 2
        assert "draining" in container.log()
        assert ask(f"{container.url}/predict", number_row((5.1, 3.5, 1.4, 0.2)).values)["label"] == "setosa"
        assert container.wait() == 0
        assert 2 <= time.monotonic() - told < 5


@LONG
def test_several_workers_need_a_place_for_their_metrics(built: Built) -> None:
    """Which nobody has on a read-only root: it is said at once, and a volume at /tmp helps."""
    with (
        pytest.raises(containers.ContainerError, match="No usable temporary directory"),
        containers.container(built.reference, workers=2),
    ):
        pass
    with containers.container(
        built.reference, options=("--tmpfs=/tmp",), workers=2, drain_seconds=0
    ) as several:
        assert ask(f"{several.url}/health/ready") == {"status": "ready"}
        several.signal("TERM")
        assert several.wait() == 0


@LONG
def test_another_clone_and_another_builder_give_the_same_digest(built: Built, tmp_path: Path) -> None:
    second = tmp_path / "second"
    subprocess.run(["git", "clone", "-q", str(built.clone), str(second)], check=True)
    shutil.copytree(built.clone / "model", second / "model")
    for path in [*second.glob("app/**/*"), *second.glob("model/*"), second / "uv.lock", second / "app"]:
        path.chmod(0o770 if path.is_dir() else 0o660)
        os.utime(path, (1, 1))
    other = "buildah" if built.record.tool == "podman" else "podman"
    reference = f"{built.registry}/second:{built.record.revision}"
    main(["build", "--strict", "--no-cache", "--tool", other, "--tag", reference], second)
    record = read_record("iris", second)
    assert (record.tool, record.id, record.digest) == (other, built.record.id, built.record.digest)


@LONG
def test_a_build_that_fails_says_why(built: Built, spare: Path) -> None:
    """Here a lock that was left behind; the builder's own last words are the step and say nothing."""
    former = record_file("iris", spare).read_text()
    file = spare / "pyproject.toml"
    file.write_text(file.read_text().replace('"orjson>=3.11"', '"orjson>=3.12"'))
    with pytest.raises(ImageError, match=r"^`podman build` failed.*lockfile .* needs to be updated"):
        main(["build", "--tool", "podman"], spare)
    assert record_file("iris", spare).read_text() == former


def _miss_a_package(clone: Path) -> None:
    _change(clone / "app/main.py", r"^import ", "import pandas\nimport ")


def _leave_a_module_out(clone: Path) -> None:
    file = clone / ".dockerignore"
    file.write_text(file.read_text() + "app/cells.py\n")


def _need_a_newer_runtime(clone: Path) -> None:
    bundle = read_bundle(clone / "model")
    model = onnx.load_from_string(bundle.model)
    model.opset_import[0].version = 999
    content = model.SerializeToString()
    described = bundle.manifest.model.model_copy(update={"sha256": sha256(content)})
    manifest = bundle.manifest.model_copy(update={"model": described})
    manifest = manifest.model_copy(update={"digest": manifest.computed_digest()})
    manifest = manifest.model_copy(update={"version": version_of(manifest.digest)})
    write_bundle(Bundle(manifest=manifest, model=content), clone / "model")


def _mistake_a_checksum(clone: Path) -> None:
    _change(clone / "uv.lock", r"(/orjson-[\w.-]+whl\", hash = \"sha256:)\w{8}", r"\g<1>00000000")


def _change(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
    assert count
    file.write_text(text)


PLANTED = {
    34: (_miss_a_package, "No module named 'pandas'"),
    35: (_leave_a_module_out, "app.cells"),
    37: (_need_a_newer_runtime, "opset"),
    39: (_mistake_a_checksum, "Hash mismatch for `orjson"),
}
"""By the number in docs/first-deployment.md: what breaks the build, and what is said."""


@LONG
@pytest.mark.parametrize("number", PLANTED)
def test_a_build_finds_what_broke_elsewhere(
    number: int, built: Built, spare: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plant, said = PLANTED[number]
    plant(spare)
    with pytest.raises(ImageError):
        main(["build", "--tool", built.record.tool], spare)
    assert said in capfd.readouterr().err


@LONG
def test_a_program_that_writes_to_its_own_files_does_not_start(built: Built, spare: Path) -> None:
    """Number 40 of docs/first-deployment.md."""
    file = spare / "app/main.py"
    file.write_text(file.read_text() + '\nopen("/app/state", "w").close()\n')
    main(["build", "--tool", built.record.tool], spare)
    with pytest.raises(containers.ContainerError, match="Read-only file system"):
        containers.container(read_record("iris", spare).reference).__enter__()


@LONG
def test_a_damaged_bundle_fails_the_build_without_our_tool_too(built: Built, spare: Path) -> None:
    file = spare / "model" / "model.json"
    file.write_text(file.read_text().replace("setosa", "Setosa"))
    source = read_source(built.clone)
    # All as in the real build, so that its steps need not be run again.
    labels = [f"--label={name}={value}" for name, value in source.labels(containers.BASE).items()]
    arguments = [f"--timestamp={LAYER_EPOCH}", *labels, *os.environ["IMAGE_BUILD_ARGS"].split()]
    with pytest.raises(containers.ContainerError, match="does not match its own digest"):
        containers.call(
            *(
                "podman",
                "build",
                f"--from={containers.BASE}",
                "--layers",
                "--format=docker",
                "--target=bundle",
            ),
            *(*arguments, f"--file={spare}/app/Dockerfile", str(spare)),
        )


@LONG
@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_inspect_shows_what_was_built(built: Built, capfd: pytest.CaptureFixture[str], tool: str) -> None:
    main(["inspect", "--tool", tool], built.clone)
    shown = json.loads(capfd.readouterr().out)
    assert (shown["id"], shown["digest"]) == (built.record.id, built.record.digest)
    assert abs(shown["bytes"] - built.record.bytes) < MEGABYTE
    assert shown["labels"]["org.opencontainers.image.revision"] == built.record.revision
    main(["inspect", "--tool", tool, containers.BASE], built.clone)
    assert json.loads(capfd.readouterr().out)["labels"] == {}


@LONG
def test_is_pushed_once_and_pulled_by_digest(built: Built, capfd: pytest.CaptureFixture[str]) -> None:
    main(["push"], built.clone)
    record = read_record("iris", built.clone)
    name = built.reference.rpartition(":")[0]
    assert record.digest == built.record.digest, "the registry knows it by the digest that the build had"
    assert record.pushed == f"{name}@{record.digest}"
    assert capfd.readouterr().out.strip() == record.pushed

    main(["push"], built.clone)
    again = capfd.readouterr()
    assert again.out.strip() == record.pushed
    assert "Copying" not in again.err

    with Registry() as registry:
        seen = registry.inspect(Reference.parse(record.pushed))
    assert seen.labels["dev.espalier.model.digest"] == record.model_digest
    pulled = containers.call("podman", "pull", "--quiet", "--tls-verify=false", record.pushed)
    assert f"sha256:{pulled}" == record.id


@LONG
def test_the_same_image_packed_otherwise_is_the_same(built: Built, tagged: Tagged) -> None:
    """As after a release that is run again, on a machine whose builder writes manifests in another way."""
    root = tagged("otherwise/espalier")
    main(["push"], root)
    reference = read_record("iris", root).reference
    name, _, tag = reference.partition("/")[2].rpartition(":")
    url = f"http://{built.registry}/v2/{name}/manifests/{tag}"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"accept": kind})) as answer:
        otherwise = json.dumps(json.load(answer), indent=1).encode()
    put = urllib.request.Request(url, otherwise, {"content-type": kind}, method="PUT")
    urllib.request.urlopen(put).close()

    main(["push"], root)
    record = read_record("iris", root)
    assert record.id == built.record.id
    assert record.digest == f"sha256:{hashlib.sha256(otherwise).hexdigest()}" != built.record.digest
    assert record.pushed == f"{built.registry}/{name}@{record.digest}"


@LONG
def test_another_image_keeps_its_tag(built: Built, tagged: Tagged) -> None:
    root = tagged("taken/espalier")
    reference = read_record("iris", root).reference
    containers.call("podman", "push", "--tls-verify=false", containers.BASE, f"docker://{reference}")
    with pytest.raises(ImageError, match=r"has another image under the tag .*a commit has one image"):
        main(["push"], root)
    main(["push", "--replace"], root)
    assert read_record("iris", root).digest == built.record.digest


@LONG
def test_an_image_that_was_replaced_is_not_pushed(built: Built, tagged: Tagged) -> None:
    root = tagged("replaced/espalier")
    containers.call("podman", "tag", containers.BASE, read_record("iris", root).reference)
    with pytest.raises(ImageError, match="no longer the image that was built"):
        main(["push"], root)


@LONG
def test_a_registry_that_is_away_is_said(tagged: Tagged) -> None:
    root = tagged("espalier", f"127.0.0.1:{free_port()}")
    with pytest.raises(DeployError, match=r"127\.0\.0\.1:\d+ cannot be"):
        main(["push"], root)


@LONG
def test_docker_gives_one_digest_as_well(first: Path, tmp_path: Path) -> None:
    """Where there is an engine, as on GitHub's machines; no other test needs one."""
    if fault := Docker().fault():
        pytest.skip(f"docker: {fault}")
    reference = f"localhost/espalier-test:{os.getpid()}"
    try:
        main(["build", "--strict", "--tool", "docker", "--tag", reference], first)
        record = read_record("iris", first)
        second = tmp_path / "second"
        subprocess.run(["git", "clone", "-q", str(first), str(second)], check=True)
        shutil.copytree(first / "model", second / "model")
        main(["build", "--strict", "--no-cache", "--tool", "docker", "--tag", reference], second)
        again = read_record("iris", second)
        assert (again.digest, again.bytes) == (record.digest, record.bytes)
        shown = subprocess.run(
            ["docker", "image", "inspect", reference], capture_output=True, text=True, check=True
        )
        (image,) = json.loads(shown.stdout)
        assert image["Config"]["Healthcheck"]["Test"] == [
            "CMD",
            "/app/.venv/bin/python",
            "-m",
            "app.healthcheck",
        ]
        assert image["Created"] == image["Config"]["Labels"]["org.opencontainers.image.created"]
    finally:
        subprocess.run(["docker", "image", "rm", "--force", reference], capture_output=True, check=False)


@pytest.fixture
def tagged(built: Built, spare: Path) -> Tagged:
    """A clone whose last build is the image under another name."""

    def tag(name: str, registry: str = built.registry) -> Path:
        reference = f"{registry}/{name}:{built.record.revision}"
        containers.call("podman", "tag", built.reference, reference)
        file = record_file("iris", spare)
        record = {**json.loads(file.read_text()), "reference": reference, "digest": built.record.digest}
        file.write_text(json.dumps(record))
        return spare

    return tag


def manifest_of(repository: str, record: Record) -> dict[str, Any]:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    asked = urllib.request.Request(f"{repository}/manifests/{record.digest}", headers={"accept": kind})
    with urllib.request.urlopen(asked) as answer:
        manifest: dict[str, Any] = json.load(answer)
    return manifest


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def inspect_image(reference: str) -> dict[str, Any]:
    shown: list[dict[str, Any]] = json.loads(containers.call("podman", "image", "inspect", reference))
    return shown[0]


def site_packages(tree: Path) -> Path:
    (folder,) = (tree / "app" / ".venv" / "lib").glob("python3*/site-packages")
    return folder


def requirement(text: str) -> str:
    """The name in a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", text)
    assert found is not None
    return normal(found[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def health(container: containers.Container) -> int:
    """The exit status of the health check that the image declares."""
    done = subprocess.run(["podman", "healthcheck", "run", container.name], capture_output=True, check=False)
    return done.returncode


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())
