"""The metadata that TensorFlow Serving answers with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.savedmodel.metadata import signature_metadata
from penstock.savedmodel.reader import read_saved_model
from penstock.tensors import FLOAT, STRING, Signature, TensorSpec


def test_metadata_is_the_protobuf_json_of_the_signatures() -> None:
    """Also in the order of its keys, which the text shows."""
    x = TensorSpec("x", FLOAT, (None, 784), "x:0")
    y = TensorSpec("y", STRING, None, "y:0")
    signatures = {"s": Signature("s", {"x": x}, {"y": y}, "tensorflow/serving/predict")}
    assert json.dumps(signature_metadata("mnist", 123, signatures)) == (
        '{"model_spec": {"name": "mnist", "signature_name": "", "version": "123"}, '
        '"metadata": {"signature_def": {"signature_def": {"s": {'
        '"inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}, '
        '{"size": "784", "name": ""}], "unknown_rank": false}, "name": "x:0"}}, '
        '"outputs": {"y": {"dtype": "DT_STRING", "tensor_shape": {"dim": [], "unknown_rank": true}, "name": "y:0"}}, '
        '"method_name": "tensorflow/serving/predict", "defaults": {}}}}}}'
    )


def test_metadata_is_what_protobuf_itself_says(tf: Any, exported: Path) -> None:
    from google.protobuf import json_format
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    ours = signature_metadata("zoo", 1, read_saved_model(exported).signatures)
    definitions = ours["metadata"]["signature_def"]["signature_def"]
    for name, definition in definitions.items():
        parsed = json_format.ParseDict(definition, meta_graph_pb2.SignatureDef())
        assert parsed == proto.meta_graphs[0].signature_def[name]
