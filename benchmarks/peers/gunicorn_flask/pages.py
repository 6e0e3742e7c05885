"""Flask with the web pages' network, between the two functions of examples/multitask that make its inputs and its answer.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code gunicorn --workers 2 --bind 127.0.0.1:PORT pages:app`; POST /page
"""

import os

import tensorflow as tf
from features import features
from flask import Flask, Response, request
from inference import answer

app = Flask(__name__)
model = tf.saved_model.load(os.environ["MODEL_PATH"])
signature = model.signatures["serving_default"]


@app.route("/page", methods=["POST"])
def predict() -> Response:
    inputs = {name: tf.constant(array) for name, array in features(request.get_data()).items()}
    outputs = {name: output.numpy() for name, output in signature(**inputs).items()}
    return Response(answer(outputs), mimetype="application/json")
