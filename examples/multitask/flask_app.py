"""The same service as one is quick to write it: Flask around Keras' `model.predict`, to compare with.

Features and answer are those of code/, so that only the serving differs. Run it with
`MODEL=.cache/examples/multitask.keras flask --app examples/multitask/flask_app.py run`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().with_name("code")))

import keras
from features import features
from flask import Flask, Response, request
from inference import answer

app = Flask(__name__)
model = keras.models.load_model(os.environ["MODEL"])


@app.get("/ping")
def ping() -> str:
    return ""


@app.post("/invocations")
def invocations() -> Response:
    outputs = model.predict(features(request.get_data()), verbose=0)
    return Response(answer(outputs), mimetype="application/json")
