"""Reading version folders: signatures, sizes, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import DataLoss, NotFound, PenstockError
from penstock.savedmodel.protos import SavedModelProto
from penstock.savedmodel.reader import parse_meta_graph, read_saved_model
from penstock.tensors import dtype_of_name


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A version folder that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "1"))


def write_model(folder: Path, *tags: str) -> Any:
    """A model without a graph, and one signature; returns the signature's definition."""
    model = SavedModelProto()
    meta_graph = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.extend(tags)
    output = meta_graph.signature_def["good"].outputs["y"]
    output.name, output.dtype = "y:0", 1
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return model


def test_signatures_have_names_types_and_shapes_in_the_order_of_names(exported: Path) -> None:
    model = read_saved_model(exported)
    assert list(model.signatures) == ["count", "look_up", "noise", "scale"]
    scale = model.signatures["scale"]
    assert scale.inputs["x"].dtype == dtype_of_name("float")
    assert scale.inputs["x"].shape == (None, 3)
    assert scale.inputs["x"].tensor == "scale_x:0"
    assert scale.method_name == "tensorflow/serving/predict"
    assert scale.takes_batches
    assert model.signatures["look_up"].inputs["words"].dtype.is_string
    assert model.signatures["noise"].inputs["x"].shape is None
    assert model.signatures["count"].outputs["times"].shape == ()
    assert model.unsupported == {}


def test_sizes_are_those_of_the_files(exported: Path) -> None:
    model = read_saved_model(exported)
    assert model.graph_bytes == (exported / "saved_model.pb").stat().st_size
    assert model.variables_bytes == sum(file.stat().st_size for file in (exported / "variables").iterdir())
    assert model.assets_bytes == len("one\ntwo\n")
    assert model.total_bytes == model.graph_bytes + model.variables_bytes + model.assets_bytes


def test_ops_are_those_of_functions_too_and_no_function_names(exported: Path) -> None:
    ops = read_saved_model(exported).ops
    assert {"StatefulPartitionedCall", "AssignAddVariableOp", "LookupTableFindV2", "RestoreV2"} <= ops
    assert not any("inference" in op for op in ops)


def test_version_and_tags_are_those_of_the_file(tf: Any, exported: Path) -> None:
    model = read_saved_model(exported)
    assert model.tensorflow_version == tf.__version__
    assert model.tags == ("serve",)


def test_third_party_models_have_the_signatures_that_they_are_known_for(third_party_models: Path) -> None:
    half = read_saved_model(third_party_models / "half_plus_two_cpu" / "00000123")
    assert {"serving_default", "classify_x_to_y", "regress_x_to_y", "regress_x_to_y2"} <= half.signatures.keys()
    assert half.signatures["regress_x_to_y"].method_name == "tensorflow/serving/regress"
    three = read_saved_model(third_party_models / "half_plus_three" / "00000123")
    assert three.signatures["serving_default"].inputs["x"].shape is None
    newer = read_saved_model(third_party_models / "half_plus_two_tf2_cpu" / "00000123")
    np.testing.assert_array_equal(newer.signatures["serving_default"].defaults["x"], np.zeros(1, np.float32))


def test_text_form_says_the_same_as_binary_form(tf: Any, third_party_models: Path, tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    folder = Path(shutil.copytree(third_party_models / "half_plus_two_cpu" / "00000123", tmp_path / "1"))
    folder.chmod(0o755)
    binary = read_saved_model(folder)
    proto = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(proto))
    text = read_saved_model(folder)
    assert (text.signatures, text.ops, text.is_stateful) == (binary.signatures, binary.ops, binary.is_stateful)


def test_meta_graph_of_the_c_api_gives_the_same_signatures(tf: Any, exported: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    signatures = parse_meta_graph(proto.meta_graphs[0].SerializeToString())
    assert signatures == read_saved_model(exported).signatures


def test_bytes_that_are_no_meta_graph_are_data_loss() -> None:
    with pytest.raises(DataLoss, match="not a MetaGraphDef"):
        parse_meta_graph(b"\xff\xff")


def test_internal_signatures_are_not_signatures(tmp_path: Path) -> None:
    model = write_model(tmp_path, "serve")
    for name in ("__saved_model_init_op", "__saved_model_train_op"):
        model.meta_graphs[0].signature_def[name].outputs[name].name = "NoOp"
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    read = read_saved_model(tmp_path)
    assert list(read.signatures) == ["good"]
    assert read.unsupported == {}


def test_signatures_that_no_array_fits_are_left_out_with_the_reason(tmp_path: Path) -> None:
    model = write_model(tmp_path, "serve")
    signatures = model.meta_graphs[0].signature_def
    for name in ("resource", "sparse", "composite", "nameless", "untyped", "wrong_default"):
        signatures[name].outputs["y"].CopyFrom(signatures["good"].outputs["y"])
    signatures["resource"].inputs["x"].name = "x:0"
    signatures["resource"].inputs["x"].dtype = 20
    signatures["sparse"].inputs["x"].coo_sparse.SetInParent()
    signatures["composite"].outputs["z"].composite_tensor.SetInParent()
    signatures["nameless"].inputs["x"].dtype = 1
    signatures["untyped"].inputs["x"].name = "x:0"
    signatures["wrong_default"].inputs["x"].CopyFrom(signatures["good"].outputs["y"])
    signatures["wrong_default"].defaults["x"].dtype = 3
    signatures["empty"].method_name = "m"
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    read = read_saved_model(tmp_path)
    assert list(read.signatures) == ["good"]
    assert read.unsupported == {
        "composite": "output 'z' is a composite tensor",
        "empty": "it has no outputs",
        "nameless": "input 'x' names no tensor of the graph",
        "resource": "input 'x' has the element type resource, which no array can hold",
        "sparse": "input 'x' is a sparse tensor",
        "untyped": "input 'x' has the element type number 0, which no array can hold",
        "wrong_default": "the default of input 'x' is not of its element type float",
    }


def test_tags_must_match_exactly_and_in_any_order(tmp_path: Path) -> None:
    write_model(tmp_path, "serve", "gpu")
    assert read_saved_model(tmp_path, ("gpu", "serve")).tags == ("serve", "gpu")
    with pytest.raises(NotFound, match=r"saved_model\.pb: no graph has exactly the tags serve; there are: serve,gpu"):
        read_saved_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"saved_model\.pb: no such file"),
        (b"", r"saved_model\.pb: the file is empty"),
        (b"\x12\xff\xff", r"saved_model\.pb: not a SavedModel, or truncated \(3 bytes\)"),
        (b"\x08\x01", r"saved_model\.pb: it holds no graph"),
        (b"\x12\x04" * 200, r"saved_model\.pb: "),
    ],
)
def test_spoilt_graph_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises((DataLoss, NotFound), match=message):
        read_saved_model(tmp_path)


@pytest.mark.parametrize("content", [b"meta_graphs {", b"\xff\xfe", b"meta_graphs { a { " * 2000])
def test_spoilt_text_form_is_data_loss(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pbtxt").write_bytes(content)
    with pytest.raises(DataLoss, match=r"saved_model\.pbtxt: not a SavedModel"):
        read_saved_model(tmp_path)


def test_missing_variables_are_named(copied: Path) -> None:
    shard = copied / "variables" / "variables.data-00000-of-00001"
    shard.unlink()
    with pytest.raises(NotFound, match=r"variables\.data-00000-of-00001: the file is missing"):
        read_saved_model(copied)
    index = copied / "variables" / "variables.index"
    content = index.read_bytes()
    for spoilt in (b"", content[:-1], content[1:], b"\xff" * 60):
        index.write_bytes(spoilt)
        with pytest.raises(DataLoss, match=r"variables\.index: not the index of a checkpoint"):
            read_saved_model(copied)
    index.unlink()
    with pytest.raises(NotFound, match=r"variables\.index: the file is missing"):
        read_saved_model(copied)
    (copied / "variables").rmdir()
    with pytest.raises(NotFound, match="variables: the folder is missing"):
        read_saved_model(copied)


def test_each_shard_that_the_index_names_must_be_there(tf: Any, copied: Path) -> None:
    index = copied / "variables" / "variables.index"
    shards = copied / "variables" / "variables.data-00000-of-00001"
    content = index.read_bytes()
    at = content.index(b"\x00\x00\x06\x08\x01\x1a\x02\x08\x01")
    index.write_bytes(content[: at + 4] + b"\x03" + content[at + 5 :])
    for number in range(2):
        shutil.copy(shards, shards.with_name(f"variables.data-{number:05}-of-00003"))
    with pytest.raises(NotFound, match=r"variables\.data-00002-of-00003: the file is missing; the index names 3"):
        read_saved_model(copied)


def test_graph_without_variables_needs_no_variables_folder(tmp_path: Path) -> None:
    write_model(tmp_path, "serve")
    assert read_saved_model(tmp_path).variables_bytes == 0


def test_every_truncation_is_a_clear_error(third_party_models: Path, tmp_path: Path) -> None:
    source = third_party_models / "counter" / "00000123"
    whole = (source / "saved_model.pb").read_bytes()
    for size in range(0, len(whole), 13):
        (tmp_path / "saved_model.pb").write_bytes(whole[:size])
        with pytest.raises((DataLoss, NotFound), match=r"saved_model\.pb: "):
            read_saved_model(tmp_path)


def test_changed_bytes_never_raise_anything_else(third_party_models: Path, tmp_path: Path) -> None:
    whole = (third_party_models / "half_plus_two_tf2_cpu" / "00000123" / "saved_model.pb").read_bytes()
    flips = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8)

    @settings(max_examples=150, deadline=None)
    @given(flips)
    def check(changes: list[tuple[int, int]]) -> None:
        data = bytearray(whole)
        for position, value in changes:
            data[position] = value
        (tmp_path / "saved_model.pb").write_bytes(data)
        try:
            read_saved_model(tmp_path)
        except PenstockError as error:
            assert str(tmp_path) in error.message  # noqa: PT017 - both outcomes are right
        try:
            parse_meta_graph(bytes(data))
        except PenstockError:
            pass

    check()


def test_two_inputs_that_are_one_tensor_are_no_signature(tmp_path: Path) -> None:
    """TensorFlow would read behind what it is fed."""
    model = write_model(tmp_path, "serve")
    signatures = model.meta_graphs[0].signature_def
    signatures["twice"].CopyFrom(signatures["good"])
    for alias in ("a", "b"):
        signatures["twice"].inputs[alias].name = "x:0"
        signatures["twice"].inputs[alias].dtype = 1
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    read = read_saved_model(tmp_path)
    assert "twice" not in read.signatures
    assert read.unsupported["twice"].endswith("are the same tensor")
