"""A bare FastAPI service with one page, the bytes of PAGE_FILE, to compare `/metrics` with."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Response

PAGE = Path(os.environ["PAGE_FILE"]).read_bytes()
app = FastAPI()


@app.get("/metrics")
async def page() -> Response:
    return Response(PAGE, media_type="text/plain; version=0.0.4")
