"""FastAPI with the loaded signature of a SavedModel, under uvicorn with workers as FastAPI's deployment page starts it.

`MODEL_PATH=DIR uvicorn app:app --workers 2 --port PORT`; POST /predict, or /npy with an array as NumPy writes it to files
"""

import io
import os
from typing import Any

import numpy as np
import tensorflow as tf
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

app = FastAPI()
model = tf.saved_model.load(os.environ["MODEL_PATH"])
signature = model.signatures["serving_default"]


class Instances(BaseModel):
    instances: list[Any]


class Predictions(BaseModel):
    predictions: list[Any]


@app.post("/predict")
def predict(body: Instances) -> Predictions:
    instances = tf.constant(np.array(body.instances, dtype=np.float32))
    (output,) = signature(x=instances).values()
    return Predictions(predictions=output.numpy().tolist())


@app.post("/npy")
async def predict_npy(request: Request) -> Response:
    (output,) = signature(x=tf.constant(np.load(io.BytesIO(await request.body())))).values()
    file = io.BytesIO()
    np.save(file, output.numpy())
    return Response(file.getvalue(), media_type="application/x-npy")
