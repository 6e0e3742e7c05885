"""BentoML with adaptive batching and two workers; arrays as NumPy writes them to files come through a mounted FastAPI app.

`MODEL_PATH=DIR bentoml serve service:Inference --port PORT`; POST /predict, whose answer is the rows alone, or /npy
"""

import io
import os
from typing import Annotated

import bentoml
import numpy as np
import tensorflow as tf
from bentoml.validators import DType
from fastapi import FastAPI, Request, Response

app = FastAPI()
# A batch that is late by its own estimate is refused: nothing here is to be, so the latency that is aimed at is long.
LATENCY_MS = 60_000


@bentoml.service(
    workers=2,
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app)
class Inference:
    def __init__(self) -> None:
        self.model = tf.saved_model.load(os.environ["MODEL_PATH"])
        self.signature = self.model.signatures["serving_default"]

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=LATENCY_MS)
    def predict(self, instances: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        (output,) = self.signature(x=tf.constant(instances)).values()
        return output.numpy()

    @app.post("/npy")
    async def predict_npy(self, request: Request) -> Response:
        (output,) = self.signature(x=tf.constant(np.load(io.BytesIO(await request.body())))).values()
        file = io.BytesIO()
        np.save(file, output.numpy())
        return Response(file.getvalue(), media_type="application/x-npy")
