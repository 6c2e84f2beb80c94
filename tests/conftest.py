from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.browsing"]

# A machine that is busy is no fault of the code: examples may take as long as they take.
settings.register_profile("espalier", deadline=None, print_blob=True)
settings.load_profile("espalier")
