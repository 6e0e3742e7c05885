"""Our own descriptors: up to date, equal to TensorFlow's where they overlap, and usable beside them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from penstock.errors import UsageError
from penstock.savedmodel import protos
from penstock.savedmodel.protos import ConfigProto, parse_config

ROOT = Path(__file__).parents[2]


def fields_of(descriptor: Any, seen: dict[str, Any], package: str) -> dict[str, Any]:
    """Each field of a message and of all that it is made of, by path: number, type, label; enum values too."""
    name = descriptor.full_name.removeprefix(package)
    if name in seen:
        return seen
    seen[name] = {}
    for field in descriptor.fields:
        label = descriptor_pb2.FieldDescriptorProto()
        field_of_file(descriptor, field.name, label)
        seen[name][field.name] = (field.number, field.type, label.label)
        if field.message_type is not None:
            fields_of(field.message_type, seen, package)
        if field.enum_type is not None:
            values = {value.name: value.number for value in field.enum_type.values}
            seen[field.enum_type.full_name.removeprefix(package)] = values
    return seen


def field_of_file(descriptor: Any, name: str, into: descriptor_pb2.FieldDescriptorProto) -> None:
    message = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(message)
    into.CopyFrom(next(field for field in message.field if field.name == name))


def test_config_has_the_fields_of_tensorflow(tf: Any) -> None:
    """Every field of the installed TensorFlow is ours, with the same number, type and label."""
    from tensorflow.core.protobuf import config_pb2

    theirs = fields_of(config_pb2.ConfigProto.DESCRIPTOR, {}, "tensorflow.")
    ours = fields_of(ConfigProto.DESCRIPTOR, {}, "penstock.savedmodel.config.")
    for name, fields in theirs.items():
        assert {key: ours[name].get(key) for key in fields} == fields, name


def test_saved_model_fields_are_those_of_tensorflow(tf: Any) -> None:
    """What we declare has TensorFlow's number and type; a map may be read as a list."""
    from tensorflow.core.protobuf import saved_model_pb2

    theirs = fields_of(saved_model_pb2.SavedModel.DESCRIPTOR, {}, "tensorflow.")
    ours = fields_of(protos.SavedModelProto.DESCRIPTOR, {}, "penstock.savedmodel.")
    renamed = {"NodeDef.Attr": "NodeDef.AttrEntry"}
    for name, fields in ours.items():
        if name.endswith("OtherEncoding"):
            continue
        for field, declared in fields.items():
            assert theirs[renamed.get(name, name)][field] == declared, f"{name}.{field}"


def test_checked_in_descriptors_are_those_of_the_proto_files(tmp_path: Path) -> None:
    """In a process of its own: protoc and TensorFlow do not get on in one."""
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    subprocess.run([sys.executable, ROOT / "tools" / "generate_protos.py", tmp_path], check=True)
    for package in ("savedmodel", "codec/protos"):
        fresh = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / f"{Path(package).name}.binpb").read_bytes())
        checked_in = (ROOT / "src" / "penstock" / package / "descriptors.binpb").read_bytes()
        assert descriptor_pb2.FileDescriptorSet.FromString(checked_in) == fresh


def test_config_in_text_form_is_what_tensorflow_reads(tf: Any) -> None:
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

    text = """
      intra_op_parallelism_threads: 3   # a comment
      device_count { key: "GPU" value: 0 }
      gpu_options { per_process_gpu_memory_fraction: 0.25 experimental { virtual_devices { memory_limit_mb: [1, 2] } } }
      graph_options { rewrite_options {
        constant_folding: OFF
        custom_optimizers { name: "mine" parameter_map { key: "k" value { list { s: "a" i: 7 } } } }
      } }
      experimental { session_metadata { name: "m" version: 2 } mlir_bridge_rollout: MLIR_BRIDGE_ROLLOUT_DISABLED }
    """
    config = config_pb2.ConfigProto.FromString(parse_config(text))
    assert config.intra_op_parallelism_threads == 3
    assert dict(config.device_count) == {"GPU": 0}
    assert list(config.gpu_options.experimental.virtual_devices[0].memory_limit_mb) == [1, 2]
    rewriter = config.graph_options.rewrite_options
    assert rewriter.constant_folding == rewriter_config_pb2.RewriterConfig.OFF
    assert rewriter.custom_optimizers[0].parameter_map["k"].list.i == [7]
    assert config.experimental.session_metadata.version == 2


def test_empty_config_is_empty() -> None:
    assert parse_config("  # nothing\n") == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("allow_soft_placement: true\nno_such: 1", r'line 2: .*"tensorflow.ConfigProto" has no field named "no_such"'),
        ("gpu_options {\n  allow_growth: 7\n}", "line 2: "),
        ("gpu_options {", "not a ConfigProto in text format"),
        ("intra_op_parallelism_threads: 99999999999", "line 1: "),
        ("\x00", "not a ConfigProto in text format"),
    ],
)
def test_mistakes_in_a_config_name_the_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config(text)


def test_deeply_nested_config_is_a_mistake_not_a_crash() -> None:
    nested = "graph_options { rewrite_options { custom_optimizers { parameter_map { value { "
    text = nested + "func { attr { value { " * 5000
    with pytest.raises(UsageError, match="not a ConfigProto in text format"):
        parse_config(text)
