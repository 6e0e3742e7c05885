"""The other forms of a SavedModel: frozen for TensorFlow, ONNX, OpenVINO's format, and those with reduced precision.

Everything here runs in a process of its own (`child.py`), since converters crash, hang and keep memory. Each export writes a
variant's folder, whole, or raises with the reason in one line.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.engine.engines import ONNXRUNTIME, OPENVINO
from penstock.engine.no_telemetry import refuse_telemetry
from penstock.engine.variant import SignatureEntry, Variant, read_variant, signature_entry, write_variant
from penstock.errors import FailedPrecondition
from penstock.optimize.same_graphs import same_graphs
from penstock.optimize.shared_weights import share_weights
from penstock.savedmodel.protos import SavedModelProto
from penstock.savedmodel.signatures import INTERNAL_NAMES
from penstock.tensors import Array, Signature

#: The newest set of ONNX operators that tf2onnx writes.
OPSET = 18
_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_MAX_PROTO_BYTES = (1 << 31) - 1


class Exporter:
    """What lives in the process: a version folder and the signatures that are wanted."""

    def __init__(
        self, version: Path, tags: Sequence[str], signatures: Mapping[str, Signature], op_libraries: Sequence[str] = ()
    ) -> None:
        self._version = version
        self._tags = list(tags)
        self._signatures = signatures
        self._op_libraries = op_libraries
        refuse_telemetry()

    def freeze(self, folder: Path) -> None:
        """A SavedModel whose variables are constants, without what no signature needs."""
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2
        from tensorflow.python.framework import convert_to_constants

        for library in self._op_libraries:
            tf.load_op_library(library)
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            meta = v1.saved_model.load(session, self._tags, str(self._version))
            for name in [name for name in meta.signature_def if name not in {*self._signatures, _INIT_SIGNATURE}]:
                del meta.signature_def[name]
            kept = sorted(_kept_nodes(meta))
            frozen = convert_to_constants.convert_variables_to_constants_from_session_graph(session, graph.as_graph_def(), kept)
        _drop_unused_functions(frozen)
        saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        made = saved.meta_graphs.add()
        made.CopyFrom(meta)
        for field in ("object_graph_def", "saver_def", "collection_def"):
            made.ClearField(field)
        for name in (*_INIT_COLLECTIONS, "saved_model_assets"):
            if name in meta.collection_def:
                made.collection_def[name].CopyFrom(meta.collection_def[name])
        made.graph_def.CopyFrom(frozen)
        if saved.ByteSize() > _MAX_PROTO_BYTES:
            raise FailedPrecondition(f"its graph would have {saved.ByteSize() >> 20} MB with constants, 2048 at the most")
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
        if (self._version / "assets").is_dir():
            shutil.copytree(self._version / "assets", folder / "assets")

    def to_onnx(self, folder: Path) -> None:
        """A graph of ONNX for each signature; weights that several of them have lie in one file."""

        def convert(signature: Signature, file: Path) -> dict[str, str]:
            _convert_to_onnx(self._version, self._tags, signature.name, file)
            return _onnx_tensors(file, signature)

        folder.mkdir()
        entries = self._entries(folder, ".onnx", convert)
        _share_weights(folder, entries)
        write_variant(folder, Variant(ONNXRUNTIME, "fp32", entries))

    def to_openvino(self, folder: Path, precision: str) -> None:
        """A graph of OpenVINO for each signature, read from the SavedModel by OpenVINO itself. fp16: of weights alone."""
        import openvino

        def convert(signature: Signature, file: Path) -> dict[str, str]:
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                _with_one_signature(self._version, self._tags, signature.name, Path(work))
                model = openvino.convert_model(work)
                openvino.save_model(model, file, compress_to_fp16=precision == "fp16")
            return _openvino_tensors(model, signature)

        folder.mkdir()
        write_variant(folder, Variant(OPENVINO, precision, self._entries(folder, ".xml", convert)))

    def _entries(self, folder: Path, suffix: str, convert: Callable[[Signature, Path], dict[str, str]]) -> list[SignatureEntry]:
        """Converts each graph once. `convert` writes the file and gives its names of the signature's tensors."""
        firsts = same_graphs(self._version, self._tags, self._signatures)
        made: dict[str, tuple[str, dict[str, str]]] = {}
        entries = []
        for name, signature in self._signatures.items():
            if firsts[name] == name:
                file = f"{len(made)}{suffix}"
                made[name] = file, convert(signature, folder / file)
            entries.append(signature_entry(signature, *made[firsts[name]]))
        return entries


class Quantizer:
    """What lives in the process that makes int8 of an fp32 variant."""

    def __init__(self, source: Path, engine: str) -> None:
        self._source = source
        refuse_telemetry()
        self._variant, self._signatures = read_variant(source, engine)

    def quantize(self, folder: Path, batches: Mapping[str, Sequence[Mapping[str, Array]]]) -> None:
        """The variant in int8, calibrated with batches of inputs for each signature."""
        folder.mkdir()
        make = _quantize_onnx if self._variant.engine == ONNXRUNTIME else _quantize_openvino
        for entry in {entry.file: entry for entry in self._variant.signatures}.values():
            names = {spec.name: spec.tensor for spec in self._signatures[entry.name].inputs.values()}
            feeds = [{names[name]: array for name, array in batch.items()} for batch in batches.get(entry.name, ())]
            if not feeds:
                raise FailedPrecondition(f"no sample of signature {entry.name} to calibrate with")
            make(self._source / entry.file, folder / entry.file, feeds)
        if self._variant.engine == ONNXRUNTIME:
            _share_weights(folder, self._variant.signatures)
        write_variant(folder, Variant(self._variant.engine, "int8", self._variant.signatures))

    def compress_weights(self, folder: Path) -> None:
        """The variant, one of OpenVINO, with its weights in int8; the arithmetic stays fp32."""
        folder.mkdir()
        for file in {entry.file for entry in self._variant.signatures}:
            _compress_openvino(self._source / file, folder / file)
        write_variant(folder, Variant(self._variant.engine, "int8", self._variant.signatures))


def _kept_nodes(meta: Any) -> set[str]:
    """The nodes that signatures name, and those that initialize tables."""
    kept = set()
    for definition in meta.signature_def.values():
        for info in (*definition.inputs.values(), *definition.outputs.values()):
            if info.name:
                kept.add(info.name.partition(":")[0])
    for name in _INIT_COLLECTIONS:
        if name in meta.collection_def:
            kept.update(value.partition(":")[0] for value in meta.collection_def[name].node_list.value)
    kept.update(asset.tensor_info.name.partition(":")[0] for asset in meta.asset_file_def)
    return kept


def _drop_unused_functions(graph: Any) -> None:
    by_name = {function.signature.name: function for function in graph.library.function}
    needed: set[str] = set()
    waiting = list(_called(graph.node))
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            waiting.extend(_called(by_name[name].node_def))
    kept = [function for name, function in by_name.items() if name in needed]
    gradients = [one for one in graph.library.gradient if one.function_name in needed]
    del graph.library.function[:]
    graph.library.function.extend(kept)
    del graph.library.gradient[:]
    graph.library.gradient.extend(gradients)


def _called(nodes: Any) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            yield from (function.name for function in value.list.func)


def _convert_to_onnx(version: Path, tags: Sequence[str], signature: str, file: Path) -> None:
    """tf2onnx as its command line runs it, which is the part of it that stays."""
    from tf2onnx import convert

    sys.argv = [
        "tf2onnx.convert",
        "--saved-model",
        str(version),
        "--tag",
        ",".join(tags),
        "--signature_def",
        signature,
        "--opset",
        str(OPSET),
        "--output",
        str(file),
    ]
    convert.main()
    if not file.is_file():
        raise FailedPrecondition(f"tf2onnx wrote nothing for signature {signature}")
    _without_erfc(file)


def _without_erfc(file: Path) -> None:
    """tf2onnx leaves TensorFlow's Erfc, which ONNX does not have, as it is: it is 1 - Erf. Keras writes GELU with it."""
    import onnx
    from onnx import helper

    model = onnx.load(str(file))
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        erf, one, like = (f"{node.output[0]}/{part}" for part in ("erf", "one", "like"))
        value = helper.make_tensor(one, onnx.TensorProto.FLOAT, [], [1.0])
        nodes += [
            helper.make_node("Erf", [node.input[0]], [erf]),
            helper.make_node("Constant", [], [one], value=value),
            helper.make_node("CastLike", [one, erf], [like]),
            helper.make_node("Sub", [like, erf], [node.output[0]]),
        ]
    if len(nodes) != len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        onnx.save(model, str(file))


def _onnx_tensors(file: Path, signature: Signature) -> dict[str, str]:
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    return _tensors(signature, {one.name for one in graph.input}, {one.name for one in graph.output})


def _openvino_tensors(model: Any, signature: Signature) -> dict[str, str]:
    inputs, outputs = ({name for port in ports for name in port.get_names()} for ports in (model.inputs, model.outputs))
    return _tensors(signature, inputs, outputs)


def _tensors(signature: Signature, inputs: set[str], outputs: set[str]) -> dict[str, str]:
    """By "input x" and "output y": what the converted graph, which has these names, calls them."""
    found = {f"input {spec.name}": _one_of(inputs, spec.name, spec.tensor, "input") for spec in signature.inputs.values()}
    found |= {f"output {spec.name}": _one_of(outputs, spec.name, spec.tensor, "output") for spec in signature.outputs.values()}
    return found


def _one_of(names: set[str], alias: str, tensor: str, kind: str) -> str:
    for name in (alias, tensor, tensor.partition(":")[0]):
        if name in names:
            return name
    raise FailedPrecondition(f"the converted graph has no {kind} {alias} ({tensor}); it has {', '.join(sorted(names)) or 'none'}")


def _with_one_signature(version: Path, tags: Sequence[str], name: str, work: Path) -> None:
    """A SavedModel in `work` that has one signature, as its default, and the files of `version`."""
    saved = SavedModelProto.FromString((version / "saved_model.pb").read_bytes())
    for place in reversed(range(len(saved.meta_graphs))):
        meta = saved.meta_graphs[place]
        if set(meta.meta_info_def.tags) != set(tags):
            del saved.meta_graphs[place]
            continue
        wanted = type(meta.signature_def[name])()
        wanted.CopyFrom(meta.signature_def[name])
        for other in [key for key in meta.signature_def if key not in INTERNAL_NAMES]:
            del meta.signature_def[other]
        meta.signature_def["serving_default"].CopyFrom(wanted)
    (work / "saved_model.pb").write_bytes(saved.SerializeToString())
    for part in ("variables", "assets"):
        if (version / part).is_dir():
            os.symlink((version / part).resolve(), work / part)


def _share_weights(folder: Path, entries: Sequence[SignatureEntry]) -> None:
    share_weights([folder / file for file in sorted({entry.file for entry in entries})])


def _quantize_onnx(source: Path, target: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._left, None)

    whole, prepared = target.with_name(f"whole-{target.name}"), target.with_name(f"prepared-{target.name}")
    try:
        # What is prepared lies elsewhere, where weights outside of the file would not be found.
        onnx.save(onnx.load(str(source)), str(whole))
        shape_inference.quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
    finally:
        whole.unlink(missing_ok=True)
        prepared.unlink(missing_ok=True)


def _quantize_openvino(source: Path, target: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    quantized = nncf.quantize(model, nncf.Dataset(list(feeds)), subset_size=len(feeds), preset=nncf.QuantizationPreset.MIXED)
    openvino.save_model(quantized, target, compress_to_fp16=False)


def _compress_openvino(source: Path, target: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    left = [node.get_friendly_name() for node in model.get_ops() if _is_of_one_pixel(node)]
    ignored = nncf.IgnoredScope(names=left) if left else None
    compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=ignored)
    openvino.save_model(compressed, target, compress_to_fp16=False)


def _is_of_one_pixel(node: Any) -> bool:
    """Whether it is a convolution of one pixel, as in squeeze and excitation.

    OpenVINO 2026.4 makes a product of matrices of it when its weights are int8, and then does not compile the graph.
    """
    if node.get_type_name() != "Convolution":
        return False
    shape = node.output(0).partial_shape
    return bool(shape.rank.is_static) and all(size.is_static and size.get_length() == 1 for size in list(shape)[2:])
