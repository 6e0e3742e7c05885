"""Ray Serve as in server.py, with the web pages' network: pages become arrays one by one, and run as a batch.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code python page_server.py PORT`; POST /page
"""

import sys
from typing import Any

import numpy as np
import tensorflow as tf
from features import features
from inference import answer
from ray import serve
from server import WAIT_S, run
from starlette.requests import Request
from starlette.responses import Response


class PageInference:
    def __init__(self, path: str) -> None:
        self.model = tf.saved_model.load(path)
        self.signature = self.model.signatures["serving_default"]

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=WAIT_S)
    async def predict(self, pages: list[Any]) -> list[str]:
        inputs = {name: tf.constant(np.concatenate([page[name] for page in pages])) for name in pages[0]}
        outputs = {name: output.numpy() for name, output in self.signature(**inputs).items()}
        return [answer({name: rows[row : row + 1] for name, rows in outputs.items()}) for row in range(len(pages))]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.predict(features(await request.body())), media_type="application/json")


if __name__ == "__main__":
    run(PageInference, http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
