"""pytriton as in saved_model.py, with the web pages' network: pages and answers are elements of the type BYTES.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code python pages.py NAME HTTP_PORT GRPC_PORT`
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from features import features
from inference import answer
from pytriton.decorators import batch
from pytriton.model_config import Tensor
from saved_model import INSTANCES, serve


def instance(signature: Any) -> Callable[..., Any]:
    @batch
    def infer(page):  # type: ignore[no-untyped-def]
        pages = [features(row[0]) for row in page]
        inputs = {name: tf.constant(np.concatenate([each[name] for each in pages])) for name in pages[0]}
        outputs = {name: output.numpy() for name, output in signature(**inputs).items()}
        answers = [answer({name: rows[row : row + 1] for name, rows in outputs.items()}) for row in range(len(pages))]
        return {"answer": np.array([[each.encode()] for each in answers], dtype=object)}

    return infer


if __name__ == "__main__":
    model = tf.saved_model.load(os.environ["MODEL_PATH"])
    signature = model.signatures["serving_default"]
    text = {"dtype": bytes, "shape": (1,)}
    functions = [instance(signature) for _ in range(INSTANCES)]
    serve(sys.argv[1], functions, [Tensor(name="page", **text)], [Tensor(name="answer", **text)])
