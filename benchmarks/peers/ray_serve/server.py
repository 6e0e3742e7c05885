"""Ray Serve with dynamic batching and two replicas. A batch waits for others for 10 ms, unless BATCH_WAIT_MS says otherwise.

`MODEL_PATH=DIR python server.py PORT`; POST /predict, or /npy with an array as NumPy writes it to files. With
RAY_SERVE_ENABLE_HA_PROXY=1 requests come in through HAProxy instead of Ray's own proxy in Python.
"""

import io
import os
import sys
from typing import Any

import numpy as np
import ray
import tensorflow as tf
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

WAIT_S = float(os.environ.get("BATCH_WAIT_MS", "10")) / 1000


class Inference:
    def __init__(self, path: str) -> None:
        self.model = tf.saved_model.load(path)
        self.signature = self.model.signatures["serving_default"]

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows: list[Any]) -> list[Any]:
        (output,) = self.signature(x=tf.constant(np.concatenate(rows))).values()
        return np.split(output.numpy(), np.cumsum([len(each) for each in rows])[:-1])

    async def __call__(self, request: Request) -> Response:
        if request.url.path == "/npy":
            file = io.BytesIO()
            np.save(file, await self.predict(np.load(io.BytesIO(await request.body()))))
            return Response(file.getvalue(), media_type="application/x-npy")
        rows = np.array((await request.json())["instances"], dtype=np.float32)
        return JSONResponse({"predictions": (await self.predict(rows)).tolist()})


def run(kind: type, **options: Any) -> None:
    """Serves until it is ended."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000)
    serve.start(logging_config={"enable_access_log": False}, **options)
    deployment = serve.deployment(kind, num_replicas=2, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
    serve.run(deployment.bind(os.environ["MODEL_PATH"]), blocking=True)


if __name__ == "__main__":
    run(Inference, http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
