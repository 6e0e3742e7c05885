"""mosec as in server.py, with the web pages' network: pages become arrays one by one, and run as a batch.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code python page_server.py --address 127.0.0.1 --port PORT`; POST /inference
"""

from typing import Any

import numpy as np
import tensorflow as tf
from features import features
from inference import answer
from mosec import Server
from server import WAIT_MS, Inference


class PageInference(Inference):
    def deserialize(self, data: bytes) -> Any:
        return features(data)

    def serialize(self, data: str) -> bytes:
        return data.encode()

    def forward(self, data: list[Any]) -> list[str]:
        inputs = {name: tf.constant(np.concatenate([page[name] for page in data])) for name in data[0]}
        outputs = {name: output.numpy() for name, output in self.signature(**inputs).items()}
        return [answer({name: rows[row : row + 1] for name, rows in outputs.items()}) for row in range(len(data))]


if __name__ == "__main__":
    server = Server()
    server.append_worker(PageInference, num=2, max_batch_size=32, max_wait_time=WAIT_MS)
    server.run()
