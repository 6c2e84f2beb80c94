from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.ci import pushed
from deploy.errors import DeployError

DIGEST = "sha256:" + "ab" * 32


def test_the_image_by_digest(tmp_path: Path) -> None:
    file = tmp_path / "image.json"
    file.write_text(json.dumps({"reference": "localhost:5000/e:tag", "pushed": f"localhost:5000/e@{DIGEST}"}))
    assert pushed.read(file) == (f"localhost:5000/e@{DIGEST}", DIGEST)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "no", '{"pushed": null}', '{"pushed": "e:tag"}', '{"pushed": "e@sha256:1"}']
)
def test_nothing_was_pushed(tmp_path: Path, content: str) -> None:
    file = tmp_path / "image.json"
    file.write_text(content)
    with pytest.raises(DeployError, match=r"deploy\.image push"):
        pushed.read(file)
    with pytest.raises(DeployError, match="cannot be read"):
        pushed.read(tmp_path / "absent.json")


def test_it_reads_what_the_image_tool_writes() -> None:
    from dataclasses import fields

    from deploy.image.__main__ import RECORD, Record

    assert "pushed" in {field.name for field in fields(Record)}
    assert RECORD == pushed.RECORD
