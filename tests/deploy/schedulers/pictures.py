"""Take the picture of the DAG in Airflow's own page: `make pictures`, with chromium and uv installed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from deploy.schedulers import __main__ as command
from tests.browsing import CHROMIUM_OPTIONS
from tests.deploy.schedulers.airflow import Airflow, install
from tests.e2e.clone import ROOT
from tests.tools import free_port

PICTURE = ROOT / "docs/images/airflow.png"
GROUP = "iris"
"""The model whose tasks are shown."""


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None or shutil.which("uv") is None:
        sys.exit("error: chromium and uv are needed")
    with tempfile.TemporaryDirectory(prefix="espalier-airflow-") as folder:
        port = free_port()
        airflow = install(
            Path(folder) / "home",
            ROOT / command.DAG.parent,
            AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        )
        # A run in which nothing was done.
        airflow.run(
            "dags", "test", "espalier_retrain", "2026-01-07T04:43:00+00:00", "--mark-success-pattern", ".*"
        )
        with sqlite3.connect(airflow.home / "airflow.db") as database:
            ((run,),) = database.execute("select run_id from dag_run")
        _photograph(airflow, port, run, chromium)
    print(PICTURE.relative_to(ROOT))


def _photograph(airflow: Airflow, port: int, run: str, chromium: str) -> None:
    server = subprocess.Popen(
        [str(airflow.home / "venv/bin/airflow"), "api-server", "--host", "127.0.0.1", "--port", str(port)],
        env=airflow.variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
            page = browser.new_page(
                viewport={"width": 1360, "height": 720}, device_scale_factor=1.5, color_scheme="light"
            )
            page.add_init_script(
                f"""localStorage.setItem("default_dag_view", '"graph"');
                localStorage.setItem("espalier_retrain/open-groups", '["{GROUP}"]');"""
            )
            page.goto(f"{url}/dags/espalier_retrain/runs/{run}")
            page.get_by_label("Collapse Details Panel").click()
            expect(page.get_by_text("train@svm")).to_be_visible(timeout=30_000)
            page.add_style_tag(
                content=".react-flow__minimap, [aria-label='Download graph image'] {display: none}"
            )
            page.locator(".react-flow__controls-fitview").click()
            page.wait_for_timeout(3000)
            page.screenshot(path=PICTURE)
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=60)


def _wait_for(url: str) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    sys.exit("error: Airflow's server does not start")


if __name__ == "__main__":
    main()
