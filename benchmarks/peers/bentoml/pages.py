"""BentoML with the web pages' network: a page is no JSON, so it comes through a mounted FastAPI app.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code bentoml serve pages:Inference --port PORT`; POST /page
"""

import os

import bentoml
import tensorflow as tf
from fastapi import FastAPI, Request, Response
from features import features
from inference import answer

app = FastAPI()


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

    @app.post("/page")
    async def predict(self, request: Request) -> Response:
        inputs = {name: tf.constant(array) for name, array in features(await request.body()).items()}
        outputs = {name: output.numpy() for name, output in self.signature(**inputs).items()}
        return Response(answer(outputs), media_type="application/json")
