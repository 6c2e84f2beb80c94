"""The service: loads a model bundle and answers over HTTP.

Importing the package turns onnxruntime's telemetry off, whatever the environment says. Its wheels send file paths and a
device id to their makers, and read the variable only when onnxruntime is imported, which app/predictor.py alone does.
"""

import os

__version__ = "0.1.0"

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
