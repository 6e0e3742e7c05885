"""Flask with `model.predict`, the way most tutorials show it, on Flask's own threaded server.

`python app.py MODEL.keras PORT`; POST /predict, or /npy with an array as NumPy writes it to files
"""

import io
import sys

import keras
import numpy as np
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
model = keras.saving.load_model(sys.argv[1], compile=False)


@app.route("/predict", methods=["POST"])
def predict() -> Response:
    instances = np.array(request.get_json()["instances"], dtype=np.float32)
    return jsonify(predictions=model.predict(instances, verbose=0).tolist())


@app.route("/npy", methods=["POST"])
def predict_npy() -> Response:
    file = io.BytesIO()
    np.save(file, model.predict(np.load(io.BytesIO(request.get_data())), verbose=0))
    return Response(file.getvalue(), mimetype="application/x-npy")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[2]), threaded=True)
