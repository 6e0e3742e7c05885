"""LitServe with batching, two workers, and the queue that it advises above 100 requests per second. A batch waits for others for
10 ms, unless BATCH_WAIT_MS says otherwise.

`MODEL_PATH=DIR python server.py PORT`; POST /predict
"""

import os
import sys
from typing import Any

import litserve as ls
import numpy as np
import tensorflow as tf

WAIT_S = float(os.environ.get("BATCH_WAIT_MS", "10")) / 1000


class Inference(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = tf.saved_model.load(os.environ["MODEL_PATH"])
        self.signature = self.model.signatures["serving_default"]

    def decode_request(self, request: dict[str, Any]) -> Any:
        return np.array(request["instances"], dtype=np.float32)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, rows: list[Any]) -> list[Any]:
        (output,) = self.signature(x=tf.constant(np.concatenate(rows))).values()
        return np.split(output.numpy(), np.cumsum([len(each) for each in rows])[:-1])

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    api = Inference(max_batch_size=32, batch_timeout=WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=2, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
