"""Flask with the loaded signature of a SavedModel, under gunicorn as Flask's deployment page starts it.

`MODEL_PATH=DIR gunicorn --workers 2 --bind 127.0.0.1:PORT app:app`;
POST /predict, or /npy with an array as NumPy writes it to files
"""

import io
import os

import numpy as np
import tensorflow as tf
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
model = tf.saved_model.load(os.environ["MODEL_PATH"])
signature = model.signatures["serving_default"]


@app.route("/predict", methods=["POST"])
def predict() -> Response:
    instances = tf.constant(np.array(request.get_json()["instances"], dtype=np.float32))
    (output,) = signature(x=instances).values()
    return jsonify(predictions=output.numpy().tolist())


@app.route("/npy", methods=["POST"])
def predict_npy() -> Response:
    (output,) = signature(x=tf.constant(np.load(io.BytesIO(request.get_data())))).values()
    file = io.BytesIO()
    np.save(file, output.numpy())
    return Response(file.getvalue(), mimetype="application/x-npy")
