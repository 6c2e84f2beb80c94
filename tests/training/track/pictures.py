"""Take the picture of MLflow's page that the README shows: `make pictures`, with chromium installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from urllib.parse import quote

import httpx
from playwright.sync_api import sync_playwright

from common.ports import free_port
from tests.browsing import CHROMIUM_OPTIONS
from tests.training.project import ROOT

PATH = ROOT / "docs/images/mlflow.png"
SECONDS = 300
TRAINED = quote("tags.job_type = 'train'")


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None or not (ROOT / "model/model.json").exists():
        sys.exit("error: chromium and a model are needed: install chromium and run make")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        ["make", "mlflow", f"MLFLOW_PORT={port}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(f"{address}/health")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
            page = browser.new_page(viewport={"width": 1280, "height": 760})
            # Of the store's experiments, the first model's is the one that this store began with.
            page.goto(
                f"{address}/#/experiments/1/runs?workflowType=machine_learning&compareRunsMode=CHART"
                f"&searchFilter={TRAINED}"
            )
            page.get_by_label("Close").first.click()
            page.get_by_placeholder("Search metric charts").fill("test/(accuracy|f1_macro|log_loss)$")
            page.wait_for_timeout(4000)
            page.screenshot(path=PATH)
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    print(PATH.relative_to(ROOT))


def _wait(url: str) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    sys.exit(f"error: {url} does not answer")


if __name__ == "__main__":
    main()
