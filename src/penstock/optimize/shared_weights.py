"""Weights of several ONNX files in one: each tensor once, however many graphs have it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

WEIGHTS_FILE = "weights.bin"
#: Smaller ones stay in the graph.
_MIN_BYTES = 1024
#: Pages, so that the file can be mapped.
_ALIGNMENT = 4096


def share_weights(files: Sequence[Path]) -> None:
    """Moves the weights of `files`, which lie in one folder, into `weights.bin` beside them, where there are several."""
    if len(files) < 2:
        return
    import onnx
    from onnx.external_data_helper import load_external_data_for_model, set_external_data

    places: dict[bytes, tuple[int, int]] = {}
    with (files[0].parent / WEIGHTS_FILE).open("wb") as weights:
        for file in files:
            model = onnx.load(str(file), load_external_data=False)
            load_external_data_for_model(model, str(file.parent))
            for tensor in model.graph.initializer:
                content = tensor.raw_data
                if len(content) < _MIN_BYTES:
                    continue
                key = hashlib.sha256(content).digest()
                if key not in places:
                    weights.seek(-weights.tell() % _ALIGNMENT, 1)
                    places[key] = weights.tell(), len(content)
                    weights.write(content)
                offset, length = places[key]
                set_external_data(tensor, WEIGHTS_FILE, offset, length)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
            file.write_bytes(model.SerializeToString())
