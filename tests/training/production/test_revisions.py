"""Files and DVC outputs of other revisions, read in real repositories."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.git import GitError
from common.lock import Entry
from tests.training.repository import Repository
from training.production.revisions import Revision, Store, UnreachableError, outputs_of


class TestRevision:
    def test_it_is_found_by_any_name(self, committed: Repository) -> None:
        head = committed.git("rev-parse", "HEAD")
        committed.git("tag", "-a", "v1", "-m", "x")
        for name in (head, head[:8], "HEAD", "main", "v1", "refs/heads/main"):
            assert Revision.find(name).commit == head

    @pytest.mark.parametrize(
        "name", ["nothing", "--help", "-n", "HEAD:dvc.lock", "", "a b", "HEAD..main", "\n"]
    )
    def test_what_is_no_commit_is_said_so(self, committed: Repository, name: str) -> None:
        with pytest.raises(UnreachableError, match="this clone has no revision"):
            Revision.find(name)

    def test_outside_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        with pytest.raises(UnreachableError, match="not a git repository"):
            Revision.find("HEAD")

    def test_without_git(self, committed: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(GitError, match="git is not installed"):
            Revision.find("HEAD")

    def test_files_are_as_they_were(self, committed: Repository) -> None:
        before = Path("params.yaml").read_bytes()
        committed.change(name="other")
        committed.commit()
        then = Revision.find("HEAD~1")
        assert then.file("params.yaml") == before
        assert then.file("nothing.yaml") is None
        assert "svm.json" in then.names("metrics")
        assert then.names("nothing") == []

    def test_where_two_branches_parted(self, committed: Repository) -> None:
        root = committed.git("rev-parse", "HEAD")
        committed.git("checkout", "-q", "-b", "branch")
        committed.commit()
        committed.git("checkout", "-q", "main")
        committed.commit("other")
        assert Revision.find("branch").merge_base(Revision.find("main")).commit == root
        committed.git("checkout", "-q", "--orphan", "stranger")
        committed.commit("stranger")
        with pytest.raises(UnreachableError, match="have no common commit"):
            Revision.find("stranger").merge_base(Revision.find("main"))


class TestOutputs:
    def test_they_are_those_of_the_lock(self, committed: Repository) -> None:
        outputs = Revision.find("HEAD").outputs
        assert outputs["model"].md5.endswith(".dir")
        content = Path("data/test.parquet").read_bytes()
        assert outputs["data/test.parquet"] == Entry("data/test.parquet", hashlib.md5(content).hexdigest())

    def test_without_a_lock(self, committed: Repository) -> None:
        committed.git("rm", "-q", "--cached", "dvc.lock")
        committed.git("commit", "-qm", "none")
        with pytest.raises(UnreachableError, match=r"has no dvc\.lock"):
            _ = Revision.find("HEAD").outputs

    @pytest.mark.parametrize("lock", [b"", b"[]", b"{", b"stages: 1", b"stages: {a: {outs: [1]}}", b"\xff"])
    def test_a_lock_that_is_none(self, lock: bytes) -> None:
        with pytest.raises(UnreachableError, match="cannot be read: run `dvc repro`"):
            outputs_of(lock)


class TestStore:
    def test_a_file_and_a_folder(self, committed: Repository) -> None:
        outputs = Revision.find("HEAD").outputs
        store = Store()
        assert store.read(outputs["data/test.parquet"]) == Path("data/test.parquet").read_bytes()
        members = store.read_folder(outputs["model"])
        assert set(members) == {"model.json", "model.onnx"}
        assert store.read(members["model.onnx"]) == Path("model/model.onnx").read_bytes()

    @pytest.mark.parametrize("md5", ["", "../../../etc/passwd", "0" * 31, "A" * 32, "0" * 32 + ".exe"])
    def test_what_is_no_hash_is_not_looked_for(self, committed: Repository, md5: str) -> None:
        with pytest.raises(UnreachableError, match="is not a hash that DVC writes"):
            Store().read(Entry("x", md5))

    def test_without_dvc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UnreachableError, match=r"there is no \.dvc folder here"):
            Store().read(Entry("x", "0" * 32))
