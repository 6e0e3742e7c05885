"""MLServer with a runtime of one's own for the web pages' network: pages and answers are elements of the type BYTES.

`MODEL_PATH=DIR PYTHONPATH=EXAMPLE/code MLSERVER_MODEL_IMPLEMENTATION=pages.Pages … mlserver start .`
"""

import os

import numpy as np
import tensorflow as tf
from features import features
from inference import answer
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Pages(MLModel):
    async def load(self) -> bool:
        self.model = tf.saved_model.load(os.environ["MODEL_PATH"])
        self.signature = self.model.signatures["serving_default"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (asked,) = payload.inputs
        pages = [features(page.encode()) for page in StringCodec.decode_input(asked)]
        inputs = {name: tf.constant(np.concatenate([page[name] for page in pages])) for name in pages[0]}
        outputs = {name: output.numpy() for name, output in self.signature(**inputs).items()}
        answers = [answer({name: rows[row : row + 1] for name, rows in outputs.items()}) for row in range(len(pages))]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("answer", answers)])
