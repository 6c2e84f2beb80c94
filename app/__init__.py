"""The service: loads a model bundle and answers over HTTP.

Importing the package disables onnxruntime's telemetry, which sends file paths and a device id to its vendor. onnxruntime
reads the variable when it is imported, which only app/predictor.py does.
"""

import os

__version__ = "0.1.0"

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
