"""LitServe as in server.py, for arrays as NumPy writes them to files: the request's type says that its body comes as it is.

`MODEL_PATH=DIR python npy_server.py PORT`; POST /predict
"""

import io
import sys
from typing import Annotated, Any

import litserve as ls
import numpy as np
from fastapi import Body, Response
from server import WAIT_S, Inference


class NpyInference(Inference):
    def decode_request(self, request: Annotated[bytes, Body()]) -> Any:
        return np.load(io.BytesIO(request))

    def encode_response(self, output: Any) -> Response:
        file = io.BytesIO()
        np.save(file, output)
        return Response(file.getvalue(), media_type="application/x-npy")


if __name__ == "__main__":
    api = NpyInference(max_batch_size=32, batch_timeout=WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=2, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
