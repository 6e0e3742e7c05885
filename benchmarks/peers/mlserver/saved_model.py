"""MLServer with a runtime of one's own for a SavedModel's signature; its settings come from settings.json and the environment.

`MODEL_PATH=DIR MLSERVER_MODEL_IMPLEMENTATION=saved_model.SavedModel MLSERVER_MODEL_NAME=NAME … mlserver start .`;
the Open Inference Protocol, as JSON over REST and over gRPC
"""

import os

import tensorflow as tf
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class SavedModel(MLModel):
    async def load(self) -> bool:
        self.model = tf.saved_model.load(os.environ["MODEL_PATH"])
        self.signature = self.model.signatures["serving_default"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (asked,) = payload.inputs
        outputs = self.signature(x=tf.constant(NumpyCodec.decode_input(asked)))
        given = [NumpyCodec.encode_output(name, output.numpy()) for name, output in outputs.items()]
        return InferenceResponse(model_name=self.name, outputs=given)
