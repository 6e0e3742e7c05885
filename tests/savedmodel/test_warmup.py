"""The recorded requests of a version: all kinds of logs, bounds, and files that are wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.example import serialize_example
from penstock.errors import DataLoss, InvalidArgument, PenstockError, PermissionDenied, ResourceExhausted, Unimplemented
from penstock.savedmodel import warmup
from penstock.savedmodel.warmup import read_warmup, recorded_request
from tests.savedmodel.logs import PredictionLog, predict_log, record

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field of fewer than 128 bytes, written by hand."""
    assert number < 16
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "assets.extra").mkdir()
    return tmp_path


def write(version: Path, *logs: Any) -> Path:
    """Writes logs, or bytes as they are, as the version's records."""
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    data = [log if isinstance(log, bytes) else log.SerializeToString() for log in logs]
    file.write_bytes(b"".join(map(record, data)))
    return file


def test_a_predict_log_is_a_call_with_arrays(version: Path) -> None:
    write(version, predict_log([1.0, 2.5], "scale", ("y", "z")), predict_log([3.0]))
    named, default = read_warmup(version)
    assert (named.signature_name, named.outputs, named.examples) == ("scale", ("y", "z"), None)
    assert (default.signature_name, default.outputs) == ("serving_default", None)
    assert named.inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(named.inputs["x"], [1.0, 2.5])
    np.testing.assert_array_equal(default.inputs["x"], [3.0])


def test_field_numbers_are_those_of_tensorflow_serving(version: Path) -> None:
    """Written by hand, with the fields that we do not read: the log's metadata, model and version, the response."""
    spec = field(1, b"some_model") + field(2, b"\x08\x07") + field(3, b"sig")
    tensor = b"\x08\x01" + field(2, field(2, b"\x08\x02")) + field(4, np.array([1, 2], "<f4").tobytes())
    predict = field(1, spec) + field(2, field(1, b"x") + field(2, tensor)) + field(3, b"y")
    examples = field(1, field(1, b"example one") + field(1, b"two"))
    with_context = field(2, field(1, b"one") + field(1, b"two") + field(2, b"context "))
    task = field(1, field(3, b"task")) + field(2, REGRESS.encode())
    write(
        version,
        field(1, b"") + field(6, field(1, predict) + field(2, b"")),
        field(2, field(1, field(1, spec) + field(2, examples))),
        field(3, field(1, field(1, spec) + field(2, with_context))),
        field(4, field(1, field(1, task) + field(2, examples))),
    )
    predict_request, classify, regress, multi = read_warmup(version)
    assert (predict_request.signature_name, predict_request.outputs) == ("sig", ("y",))
    np.testing.assert_array_equal(predict_request.inputs["x"], [1.0, 2.0])
    assert (classify.signature_name, classify.inputs, classify.examples) == ("sig", {}, [b"example one", b"two"])
    assert (regress.signature_name, regress.examples) == ("sig", [b"context one", b"context two"])
    assert (multi.signature_name, multi.examples) == ("task", [b"example one", b"two"])


def test_the_context_joins_every_example(tf: Any, version: Path) -> None:
    log = PredictionLog()
    given = log.classify_log.request.input.example_list_with_context
    given.examples.extend([serialize_example({b"a": [1]}), serialize_example({b"a": [2], b"b": [b"text"]})])
    given.context = serialize_example({b"c": [0.5]})
    write(version, log)
    (request,) = read_warmup(version)
    assert request.signature_name == "serving_default"
    first, second = (tf.train.Example.FromString(example).features.feature for example in request.examples or [])
    assert set(first) == {"a", "c"}
    assert set(second) == {"a", "b", "c"}
    assert second["a"].int64_list.value == [2]
    assert second["c"].float_list.value == [0.5]


def test_a_multi_inference_is_a_request_for_each_task(version: Path) -> None:
    log = PredictionLog()
    request = log.multi_inference_log.request
    request.input.example_list.examples.append(b"example")
    for name, method in (("classes", CLASSIFY), ("", REGRESS)):
        request.tasks.add(method_name=method).model_spec.signature_name = name
    write(version, log)
    assert [(request.signature_name, request.examples) for request in read_warmup(version)] == [
        ("classes", [b"example"]),
        ("serving_default", [b"example"]),
    ]


def test_tensors_and_records_of_tensorflow_are_read(tf: Any, version: Path) -> None:
    """Records by TensorFlow's writer, of tensors that TensorFlow made."""
    arrays: dict[str, Any] = {
        "image": np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3),
        "text": np.array([[b"a", b"b\0"]], np.object_),
        "zeros": np.zeros((2, 3), np.float64),
        "half": np.array([0.5], np.float16),
    }
    log = PredictionLog()
    for name, array in arrays.items():
        log.predict_log.request.inputs[name].ParseFromString(tf.make_tensor_proto(array).SerializeToString())
    folder = version / "assets.extra"
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    (request,) = read_warmup(version)
    assert request.inputs.keys() == arrays.keys()
    for name, array in arrays.items():
        assert request.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(request.inputs[name], array)


@pytest.mark.parametrize(("name", "number"), [("session_run_log", 5), ("predict_streamed_log", 7)])
def test_other_kinds_of_logs_are_refused(version: Path, name: str, number: int) -> None:
    log = PredictionLog()
    getattr(log, name).SetInParent()
    write(version, predict_log([1.0]), log)
    with pytest.raises(Unimplemented, match=rf"^Unsupported log_type for warmup: {number} \({name}, record 2 of "):
        read_warmup(version)


def test_a_log_without_a_request_is_passed_over(version: Path) -> None:
    write(version, b"", predict_log([1.0]))
    assert len(read_warmup(version)) == 1


def test_other_methods_of_a_multi_inference_are_refused(version: Path) -> None:
    log = PredictionLog()
    log.multi_inference_log.request.input.example_list.examples.append(b"example")
    log.multi_inference_log.request.tasks.add(method_name="tensorflow/serving/predict")
    write(version, log)
    with pytest.raises(Unimplemented, match=r"^Unsupported signature method_name: tensorflow/serving/predict"):
        read_warmup(version)


@pytest.mark.parametrize("kind", ["example_list", "example_list_with_context", ""])
def test_an_input_without_examples_is_refused(version: Path, kind: str) -> None:
    log = PredictionLog()
    log.regress_log.request.SetInParent()
    if kind:
        getattr(log.regress_log.request.input, kind).SetInParent()
    write(version, log)
    with pytest.raises(InvalidArgument, match=r"^Input is empty"):
        read_warmup(version)


def test_a_thousand_records_are_the_most(version: Path) -> None:
    log = predict_log([1.0])
    write(version, *[log] * 1000)
    assert len(read_warmup(version)) == 1000
    file = write(version, *[log] * 1001)
    with pytest.raises(InvalidArgument) as raised:
        read_warmup(version)
    assert raised.value.message == f"Number of warmup records exceeds the maximum (1000) at {file}"


def test_what_the_inputs_take_is_bounded(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they take as arrays: a record may ask for much with few bytes, as one element stands for the rest."""
    log = predict_log([1.0])
    log.predict_log.request.inputs["x"].tensor_shape.dim[0].size = 1000
    write(version, log, log)
    monkeypatch.setattr(warmup, "MAX_BYTES", 8000)
    assert len(read_warmup(version)) == 2
    monkeypatch.setattr(warmup, "MAX_BYTES", 7999)
    with pytest.raises(ResourceExhausted, match=r"up to record 2$"):
        read_warmup(version)


def test_strings_and_examples_count_with_their_bytes(version: Path) -> None:
    text, examples = PredictionLog(), PredictionLog()
    text.predict_log.request.inputs["text"].dtype = 7
    text.predict_log.request.inputs["text"].string_val.append(b"x" * 1000)
    examples.classify_log.request.input.example_list.examples.extend([b"x" * 10, b"y" * 5])
    write(version, text, examples)
    strings, listed = read_warmup(version)
    assert strings.input_bytes == 1008
    assert listed.input_bytes == 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": 20}, "input 'x', record 1 of .*: no array can hold its element type resource"),
        ({"dtype": 0}, "input 'x', record 1 of .*: no array can hold its element type number 0"),
        ({"dtype": 2}, "input 'x', record 1 of .*: it has 3 bytes, its shape asks for 8"),
    ],
)
def test_a_tensor_that_does_not_add_up_is_named(version: Path, change: dict[str, int], message: str) -> None:
    log = predict_log([1.0])
    log.predict_log.request.inputs["x"].tensor_content = b"abc"
    log.predict_log.request.inputs["x"].dtype = change["dtype"]
    write(version, log)
    with pytest.raises(InvalidArgument, match=message):
        read_warmup(version)


def test_a_record_that_is_no_log_is_named(version: Path) -> None:
    file = write(version, predict_log([1.0]), b"\xff\xff")
    with pytest.raises(InvalidArgument) as raised:
        read_warmup(version)
    assert raised.value.message == f"Failed to parse warmup record: record 2 of {file} is not a PredictionLog"


def test_a_file_that_is_cut_off_is_data_loss(version: Path) -> None:
    file = write(version, predict_log([1.0]))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataLoss, match=r"truncated .*\. Please verify your warmup data is in TFRecord format\.$"):
        read_warmup(version)


@given(data=st.binary(max_size=100), position=st.integers(0, 60), in_record=st.booleans())
def test_whatever_the_bytes_are_only_our_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, position: int, in_record: bool
) -> None:
    version = tmp_path_factory.getbasetemp() / "given"
    (version / "assets.extra").mkdir(parents=True, exist_ok=True)
    good = predict_log([1.0, 2.0], "scale", ("y",)).SerializeToString()
    file = write(version, good[:position] + data)
    if not in_record:
        file.write_bytes(file.read_bytes()[:position] + data)
    try:
        read_warmup(version)
    except PenstockError:
        pass


def test_a_version_without_recorded_requests_has_none(tmp_path: Path) -> None:
    assert read_warmup(tmp_path) == []
    assert recorded_request(tmp_path) is None


def test_an_empty_file_has_no_requests(version: Path) -> None:
    write(version)
    assert read_warmup(version) == []


def test_a_recorded_body_is_given_as_it_is(version: Path) -> None:
    body = b'{"instances": [1.0, 2.0]}\n'
    (version / "assets.extra" / "warmup.json").write_bytes(body)
    assert recorded_request(version) == body


@pytest.mark.parametrize(("name", "read"), [("tf_serving_warmup_requests", read_warmup), ("warmup.json", recorded_request)])
def test_a_folder_in_place_of_a_file_is_data_loss(version: Path, name: str, read: Any) -> None:
    (version / "assets.extra" / name).mkdir()
    with pytest.raises(DataLoss, match=f"{name}: cannot be read: Is a directory"):
        read(version)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(("name", "read"), [("tf_serving_warmup_requests", read_warmup), ("warmup.json", recorded_request)])
def test_a_file_that_may_not_be_read_is_named(version: Path, name: str, read: Any) -> None:
    file = version / "assets.extra" / name
    file.touch(mode=0)
    with pytest.raises(PermissionDenied, match=str(file)):
        read(version)
