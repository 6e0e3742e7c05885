"""Reading a SavedModel's version folder without TensorFlow: its signatures, its size, and whether it keeps state.

Guarantees: whatever the bytes of a file are, only a PenstockError comes out, whose message names the file; constants
are not parsed, and nothing of the graph is kept. Assumes that the files do not change meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from penstock.errors import DataLoss, NotFound, PermissionDenied
from penstock.savedmodel.protos import POOL, MetaGraphSignatures, SavedModelProto
from penstock.savedmodel.signatures import read_signatures
from penstock.savedmodel.state import find_state
from penstock.savedmodel.variables import check_variables, folder_bytes
from penstock.tensors import Signature

#: Ops that hold a variable, in TensorFlow 2 and 1.
_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable"})


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What is known of a version before any engine has loaded it.

    `ops` are all ops of the graph and its functions, those of restoring and saving included. `unsupported` has the
    signatures that cannot be called, with the reason.
    """

    path: Path
    tags: tuple[str, ...]
    tensorflow_version: str
    signatures: dict[str, Signature]
    is_stateful: bool
    stateful_reason: str
    ops: frozenset[str]
    graph_bytes: int
    variables_bytes: int
    assets_bytes: int
    unsupported: dict[str, str] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return self.graph_bytes + self.variables_bytes + self.assets_bytes


def read_saved_model(path: Path, tags: Sequence[str] = ("serve",)) -> SavedModel:
    """Reads the version folder `path`, and in it the graph that has exactly these tags.

    Raises NotFound for a missing file or graph, PermissionDenied, and DataLoss for what cannot be read.
    """
    file = _graph_file(path)
    data = _read(file)
    meta_graph = _choose(_parse(file, data), tags, file)
    graph = meta_graph.graph_def
    try:
        signatures, unsupported = read_signatures(meta_graph.signature_def)
    except ValueError as error:
        raise DataLoss(f"{file}: its signatures cannot be read: {error}") from error
    ops = _ops(graph)
    if meta_graph.saver_def.restore_op_name and not ops.isdisjoint(_VARIABLE_OPS):
        check_variables(path / "variables")
    reason = find_state(graph, signatures)
    return SavedModel(
        path=path,
        tags=tuple(meta_graph.meta_info_def.tags),
        tensorflow_version=meta_graph.meta_info_def.tensorflow_version,
        signatures=signatures,
        is_stateful=bool(reason),
        stateful_reason=reason,
        ops=ops,
        graph_bytes=len(data),
        variables_bytes=folder_bytes(path / "variables"),
        assets_bytes=folder_bytes(path / "assets") + folder_bytes(path / "assets.extra"),
        unsupported=unsupported,
    )


def parse_meta_graph(data: bytes) -> dict[str, Signature]:
    """The signatures of a serialized MetaGraphDef, as the C API hands it back. Raises DataLoss."""
    try:
        return read_signatures(MetaGraphSignatures.FromString(data).signature_def)[0]
    except (DecodeError, ValueError) as error:
        raise DataLoss(f"not a MetaGraphDef: {error}") from error


def _graph_file(path: Path) -> Path:
    try:
        for name in ("saved_model.pb", "saved_model.pbtxt"):
            if (path / name).is_file():
                return path / name
    except PermissionError as error:
        raise PermissionDenied(f"{path}: {error.strerror}") from error
    raise NotFound(f"{path / 'saved_model.pb'}: no such file; a version folder of a SavedModel holds one")


def _read(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except PermissionError as error:
        raise PermissionDenied(f"{file}: {error.strerror}") from error
    except OSError as error:
        raise DataLoss(f"{file}: cannot be read: {error.strerror}") from error
    if not data:
        raise DataLoss(f"{file}: the file is empty")
    return data


def _parse(file: Path, data: bytes) -> Any:
    try:
        if file.suffix == ".pb":
            return SavedModelProto.FromString(data)
        model = SavedModelProto()
        return text_format.Parse(data.decode(), model, allow_unknown_field=True, descriptor_pool=POOL)
    except (DecodeError, text_format.ParseError, ValueError, RecursionError) as error:
        raise DataLoss(f"{file}: not a SavedModel, or truncated ({len(data)} bytes)") from error


def _choose(model: Any, tags: Sequence[str], file: Path) -> Any:
    for meta_graph in model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return meta_graph
    there = [",".join(meta_graph.meta_info_def.tags) or "(none)" for meta_graph in model.meta_graphs]
    if not there:
        raise DataLoss(f"{file}: it holds no graph")
    raise NotFound(f"{file}: no graph has exactly the tags {','.join(tags) or '(none)'}; there are: {'; '.join(there)}")


def _ops(graph: Any) -> frozenset[str]:
    """All op names; a call of a function by its name is not an op."""
    ops = {node.op for node in graph.node}
    names = set()
    for function in graph.library.function:
        names.add(function.signature.name)
        ops.update(node.op for node in function.node_def)
    return frozenset(ops - names)
