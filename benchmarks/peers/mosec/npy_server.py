"""mosec as in server.py, for arrays as NumPy writes them to files: a worker says itself how it reads and writes bodies.

`MODEL_PATH=DIR python npy_server.py --address 127.0.0.1 --port PORT`; POST /inference
"""

import io
from typing import Any

import numpy as np
import tensorflow as tf
from mosec import Server
from server import WAIT_MS, Inference


class NpyInference(Inference):
    resp_mime_type = "application/x-npy"

    def deserialize(self, data: bytes) -> Any:
        return np.load(io.BytesIO(data))

    def serialize(self, data: Any) -> bytes:
        file = io.BytesIO()
        np.save(file, data)
        return file.getvalue()

    def forward(self, data: list[Any]) -> list[Any]:
        (output,) = self.signature(x=tf.constant(np.concatenate(data))).values()
        return np.split(output.numpy(), np.cumsum([len(each) for each in data])[:-1])


if __name__ == "__main__":
    server = Server()
    server.append_worker(NpyInference, num=2, max_batch_size=32, max_wait_time=WAIT_MS)
    server.run()
