"""FastAPI with the web pages' network, between the two functions of examples/multitask that make its inputs and its answer.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code uvicorn pages:app --workers 2 --port PORT`; POST /page
"""

import os

import tensorflow as tf
from fastapi import FastAPI, Request, Response
from features import features
from inference import answer

app = FastAPI()
model = tf.saved_model.load(os.environ["MODEL_PATH"])
signature = model.signatures["serving_default"]


@app.post("/page")
async def predict(request: Request) -> Response:
    inputs = {name: tf.constant(array) for name, array in features(await request.body()).items()}
    outputs = {name: output.numpy() for name, output in signature(**inputs).items()}
    return Response(answer(outputs), media_type="application/json")
