from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from tests.azure import container
from tests.clouds import google
from tests.tools import free_port, require
from training import storage
from training.base.errors import ConfigError, DataError
from training.fetch import sources


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials from the environment, and nothing from this machine's own configuration."""
    for name in (
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL_S3",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", storage.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", storage.KEY)


@pytest.mark.slow
def test_an_object_in_s3(keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    require("weed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    storage.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.endpoint())
        client = botocore.session.get_session().create_client("s3")
        pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "a.parquet")
        for key, content in {
            "folder/a.csv": b"x,y\n1,a\n",
            "a.parquet": (tmp_path / "a.parquet").read_bytes(),
            "empty.csv": b"",
        }.items():
            client.put_object(Bucket=storage.BUCKET, Key=key, Body=content)
        bucket = f"s3://{storage.BUCKET}"
        assert sources.read(f"{bucket}/folder/a.csv").to_dict("list") == {"x": ["1"], "y": ["a"]}
        assert sources.read(f"{bucket}/a.parquet")["x"].tolist() == [1, 2]
        with pytest.raises(DataError, match=r"empty\.csv is empty"):
            sources.read(f"{bucket}/empty.csv")
        with pytest.raises(DataError, match=r"has no object 'none\.csv'"):
            sources.read(f"{bucket}/none.csv")
        with pytest.raises(DataError, match="no bucket 'nowhere'"):
            sources.read("s3://nowhere/a.csv")
    finally:
        storage.stop()


def test_objects_in_azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    part = (tmp_path / "a.parquet").read_bytes()
    blobs = {
        "an é.csv": b"x,y\n1,a\n",
        "days/day=1/a.parquet": part,
        "days/day=2/a.parquet": part,
        "empty.csv": b"",
    }
    with container(blobs) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert sources.read("az://data/an é.csv").to_dict("list") == {"x": ["1"], "y": ["a"]}
        assert sources.read("az://data/days")["x"].tolist() == [1, 2, 1, 2]
        with pytest.raises(DataError, match=r"empty\.csv is empty"):
            sources.read("az://data/empty.csv")
        with pytest.raises(DataError, match=r"has no object 'none\.csv'"):
            sources.read("az://data/none.csv")
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        with pytest.raises(ConfigError, match="no Azure credentials"):
            sources.read("az://data/an é.csv")


@pytest.mark.long("tests/clouds.py", "training/fetch/objects.py")
def test_objects_in_google_cloud_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google(tmp_path) as cloud:
        address = cloud.settings["endpointurl"]
        upload = f"{address}/upload/storage/v1/b/espalier/o?uploadType=media&name=days/1.csv"
        urllib.request.urlopen(urllib.request.Request(upload, b"x,y\n1,a\n")).close()
        key = {
            "gcs_base_url": address,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
        assert sources.read("gs://espalier/days/1.csv").to_dict("list") == {"x": ["1"], "y": ["a"]}
        with pytest.raises(DataError, match=r"has no object 'none\.csv'"):
            sources.read("gs://espalier/none.csv")


def test_s3_that_cannot_be_reached_says_so_soon(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    started = time.monotonic()
    with pytest.raises(DataError, match=f"cannot reach S3 at {endpoint}"):
        sources.read("s3://bucket/a.csv")
    assert time.monotonic() - started < 10


def test_s3_without_credentials(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigError, match="no AWS credentials"):
        sources.read("s3://bucket/a.csv")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="nobody"):
        sources.read("s3://bucket/a.csv")
