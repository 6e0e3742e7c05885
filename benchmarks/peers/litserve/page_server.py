"""LitServe as in server.py, with the web pages' network: pages become arrays one by one, and run as a batch.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code python page_server.py PORT`; POST /predict
"""

import sys
from typing import Annotated, Any

import litserve as ls
import numpy as np
import tensorflow as tf
from fastapi import Body, Response
from features import features
from inference import answer
from server import WAIT_S, Inference


class PageInference(Inference):
    def decode_request(self, request: Annotated[bytes, Body()]) -> Any:
        return features(request)

    def predict(self, pages: list[Any]) -> list[Any]:
        inputs = {name: tf.constant(np.concatenate([page[name] for page in pages])) for name in pages[0]}
        outputs = {name: output.numpy() for name, output in self.signature(**inputs).items()}
        return [{name: rows[row : row + 1] for name, rows in outputs.items()} for row in range(len(pages))]

    def encode_response(self, output: Any) -> Response:
        return Response(answer(output), media_type="application/json")


if __name__ == "__main__":
    api = PageInference(max_batch_size=32, batch_timeout=WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=2, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
