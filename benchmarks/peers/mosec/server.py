"""mosec with dynamic batching: two workers, at most 32 requests or, unless BATCH_WAIT_MS says otherwise, 10 ms (its default wait,
and its README's).

`MODEL_PATH=DIR python server.py --address 127.0.0.1 --port PORT`; POST /inference
"""

import os
from typing import Any

import numpy as np
import tensorflow as tf
from mosec import Server, Worker

WAIT_MS = int(os.environ.get("BATCH_WAIT_MS", "10"))


class Inference(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = tf.saved_model.load(os.environ["MODEL_PATH"])
        self.signature = self.model.signatures["serving_default"]

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = [np.array(request["instances"], dtype=np.float32) for request in data]
        (output,) = self.signature(x=tf.constant(np.concatenate(rows))).values()
        ends = np.cumsum([len(each) for each in rows])[:-1]
        return [{"predictions": part.tolist()} for part in np.split(output.numpy(), ends)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Inference, num=2, max_batch_size=32, max_wait_time=WAIT_MS)
    server.run()
