"""What every engine must do: the same inputs give the same outputs, and what is wrong gives the same errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.engine.base import Engine, EngineOptions
from penstock.engine.engines import TENSORFLOW
from penstock.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, PenstockError
from penstock.tensors import DTYPES, Array, DType
from tests.engine.conftest import Form, Load

HYPOTHESIS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MEBIBYTE = 2**20


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def strings(*values: bytes | str) -> Array:
    return np.array(values, object)


def sample(dtype: DType, form: Form) -> Array:
    if dtype.is_string and not form.any_bytes:
        return np.array([[b"", b"short", b"x" * 22], [b"y" * 23, "é".encode(), b"z" * 5000]], object)
    if dtype.is_string:
        return np.array([[b"", b"short", b"x" * 22], [b"y" * 23, b"\0\xff", b"z" * 5000]], object)
    return np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype.numpy)


def signature_of(dtype: DType) -> str:
    return {"float": "float32", "double": "float64", "half": "float16"}.get(dtype.name, dtype.name)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("model", "shape"), [("rows", (2, 3)), ("echo", (3, 2, 1)), ("echo", (6,))], ids=str)
def test_every_element_type_goes_in_and_comes_out(
    load: Load, form: Form, dtype: DType, model: str, shape: tuple[int, ...]
) -> None:
    given_array = sample(dtype, form).reshape(shape)
    result = load(model, signature_of(dtype)).run(signature_of(dtype), {"x": given_array})["y"]
    assert result.dtype == dtype.numpy
    assert result.shape == shape
    assert result.tolist() == given_array.tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_scalars_keep_their_shape(load: Load, form: Form, dtype: DType) -> None:
    scalar = sample(dtype, form)[1, 2:].reshape(())
    result = load("echo", signature_of(dtype)).run(signature_of(dtype), {"x": scalar})["y"]
    assert (result.shape, result.item()) == ((), scalar.item())


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("model", "shape"), [("echo", (0,)), ("rows", (0, 3)), ("rows", (2, 0))], ids=str)
def test_empty_arrays_keep_their_shape(load: Load, dtype: DType, model: str, shape: tuple[int, ...]) -> None:
    result = load(model, signature_of(dtype)).run(signature_of(dtype), {"x": np.empty(shape, dtype.numpy)})["y"]
    assert (result.shape, result.dtype) == (shape, dtype.numpy)


def test_numbers_at_the_ends_of_their_types_stay_what_they_are(load: Load) -> None:
    model = load("rows", "int32", "float64", "int8", "uint16")
    for name, kind in (("int32", np.int32), ("int8", np.int8), ("uint16", np.uint16)):
        ends = np.array([[np.iinfo(kind).min, np.iinfo(kind).max]], kind)
        np.testing.assert_array_equal(model.run(name, {"x": ends})["y"], ends)
    special = np.array([[np.inf, -np.inf, np.nan, -0.0]], np.float32)
    result = model.run("float32", {"x": special})["y"]
    assert result.tobytes() == special.tobytes()


@HYPOTHESIS
@given(
    array=hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, min_side=0), elements=st.floats(width=32, allow_nan=False)),
    order=st.sampled_from("CF"),
    byte_order=st.sampled_from("<>"),
    step=st.sampled_from([1, 2, -1]),
)
@pytest.mark.parametrize("model", ["echo", "rows"])
def test_memory_layout_and_byte_order_do_not_matter(
    load: Load, model: str, array: Array, order: Any, byte_order: Any, step: int
) -> None:
    if model == "rows":
        array = array.reshape(len(array), array[0].size if len(array) else 0)
    array = np.array(array, order=order).astype(array.dtype.newbyteorder(byte_order))[::step]
    array.flags.writeable = False
    result = load(model, "float32").run("float32", {"x": array})["y"]
    np.testing.assert_array_equal(result, array)
    assert result.dtype == np.float32


@HYPOTHESIS
@given(values=st.lists(st.one_of(st.binary(max_size=60), st.text(max_size=30)), max_size=20))
def test_strings_of_any_kind_come_back_as_bytes(load: Load, form: Form, values: list[bytes | str]) -> None:
    if not form.any_bytes:
        values = [value.decode(errors="ignore").encode() if isinstance(value, bytes) else value for value in values]
    array = np.empty(len(values), object)
    array[:] = values
    result = load("echo", "string").run("string", {"x": array})["y"]
    assert result.tolist() == [value.encode() if isinstance(value, str) else value for value in values]


@pytest.mark.parametrize("array", [np.array(["a", "é"]), np.array([b"a", "é".encode()])], ids=["U", "S"])
def test_arrays_of_fixed_width_strings_are_taken(load: Load, array: Array) -> None:
    assert load("echo", "string").run("string", {"x": array})["y"].tolist() == [b"a", "é".encode()]


def test_large_arrays_are_complete(load: Load) -> None:
    numbers = np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000)
    np.testing.assert_array_equal(load("rows").run("float32", {"x": numbers.T})["y"], numbers.T)


def test_large_strings_are_complete(load: Load) -> None:
    long = b"penstock" * MEBIBYTE
    assert load("echo", "string").run("string", {"x": strings(long)})["y"].tolist() == [long]


def test_several_inputs_and_outputs_go_by_name(load: Load) -> None:
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    result = load("arithmetic").run("many", {"b": b, "a": a})
    assert list(result) == ["difference", "product", "rows"]
    np.testing.assert_array_equal(result["difference"], a - b)
    np.testing.assert_array_equal(result["product"], a @ b.T)
    assert result["rows"] == 2


def test_a_filter_chooses_outputs_and_their_order(load: Load) -> None:
    a = np.ones((2, 3), np.float32)
    model = load("arithmetic")
    assert list(model.run("many", {"a": a, "b": a}, ["rows", "difference"])) == ["rows", "difference"]
    assert list(model.run("many", {"a": a, "b": a}, ["product"])) == ["product"]


def test_a_signature_without_inputs_runs(load: Load) -> None:
    result = load("arithmetic", "constant").run("constant", {})
    assert result["y"].shape == (300, 300)
    assert np.all(result["y"] == 7)
    assert result["text"].tolist() == [b"a", b"b" * 100]


def test_the_graph_decides_the_shape(load: Load, form: Form) -> None:
    """The signature says [?]: a client that sends a matrix gets an answer all the same, or is told."""
    if not form.any_rank:
        with pytest.raises(InvalidArgument):
            load("arithmetic").run("half_plus_two", {"x": np.ones((2, 2), np.float32)})
        return
    result = load("arithmetic").run("half_plus_two", {"x": np.ones((2, 2), np.float32)})
    np.testing.assert_array_equal(result["y"], np.full((2, 2), 2.5))


def test_signatures_describe_inputs_and_outputs_in_order_of_name(load: Load) -> None:
    signature = load("arithmetic").signatures["many"]
    assert list(signature.inputs) == ["a", "b"]
    assert list(signature.outputs) == ["difference", "product", "rows"]
    assert signature.inputs["a"].shape == (None, None)
    assert signature.outputs["rows"].dtype.name == "int32"


def test_threads_get_their_own_answers(load: Load) -> None:
    model = load("arithmetic")

    def run(seed: int) -> bool:
        x = np.full(seed % 7 + 1, seed, np.float32)
        return bool(np.array_equal(model.run("half_plus_two", {"x": x})["y"], x / 2 + 2))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(run, range(400)))


@pytest.mark.usefixtures("keeps_state")
def test_what_comes_back_does_not_change_with_the_model_or_the_input(engine: Engine, exports: Path) -> None:
    """A variable that is assigned an input keeps it, and one that is read stays as it was read."""
    model = engine.load(exports / "stateful", EngineOptions())
    number, text = np.full(65536, 5, np.float32), strings("a" * 100, "b")
    model.run("put", {"number": number, "text": text})
    number[:] = 9
    text[:] = "c"
    kept = model.run("get", {})
    model.run("increase", {})
    assert np.all(kept["number"] == 5)
    assert kept["text"].tolist() == [b"a" * 100, b"b"]
    assert np.all(model.run("get", {})["number"] == 6)
    model.close()
    assert np.all(kept["number"] == 5)


def test_an_asset_fills_a_table(load: Load) -> None:
    assert load("tables", "look_up").run("look_up", {"word": strings("two", "six")})["index"].tolist() == [2, -1]


def test_a_graph_of_tensorflow_1_has_its_tables_and_variables(load: Load) -> None:
    model = load("tensorflow_1", "look_up")
    found = model.run("look_up", {"word": strings("one", "six")})
    assert found["index"].tolist() == [1, -1]
    assert found["word"].tolist() == [b"one", b"six"]


def test_what_comes_back_is_no_memory_of_the_next_run(load: Load) -> None:
    model = load("arithmetic")
    first = model.run("half_plus_two", {"x": np.full(1000, 2, np.float32)})["y"]
    model.run("half_plus_two", {"x": np.full(1000, 8, np.float32)})
    assert np.all(first == 3)


def test_one_tensor_serves_several_outputs_and_an_input_may_be_one(load: Load) -> None:
    model = load("tensorflow_1", "twice")
    result = model.run("twice", {"x": floats(1)})
    assert {name: array.tolist() for name, array in result.items()} == {"first": [11], "second": [11], "x": [1]}
    assert list(result) == ["first", "second", "x"]
    assert list(model.run("twice", {"x": floats(1)}, ["x", "second"])) == ["x", "second"]


def test_an_output_that_is_an_input_is_a_copy(load: Load) -> None:
    model = load("tensorflow_1", "only_echo")
    given_array = floats(3)
    echoed = model.run("only_echo", {"x": given_array})["x"]
    given_array[0] = 4
    assert echoed.tolist() == [3]


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs", "kind", "message"),
    [
        ("nope", {}, None, FailedPrecondition, 'Serving signature key "nope" not found.'),
        (
            "many",
            {"a": floats(1)},
            None,
            InvalidArgument,
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). "
            "Sent extra: {}. Missing but required: {b}.",
        ),
        (
            "half_plus_two",
            {"x": floats(1), "z": floats(1)},
            None,
            InvalidArgument,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
        ),
        (
            "half_plus_two",
            {"x": floats(1)},
            ["q"],
            InvalidArgument,
            "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        ),
        ("half_plus_two", {"x": floats(1)}, ["y", "y"], InvalidArgument, "duplicate output tensor alias: y"),
        (
            "half_plus_two",
            {"x": np.array([True])},
            None,
            InvalidArgument,
            "Expects input x to be float but bool is provided",
        ),
        (
            "half_plus_two",
            {"x": strings("a")},
            None,
            InvalidArgument,
            "Expects input x to be float but string is provided",
        ),
        ("shout", {"x": floats(1)}, None, InvalidArgument, "Expects input x to be string but float is provided"),
        (
            "half_plus_two",
            {"x": np.array(["2020-01-01"], "datetime64[D]")},
            None,
            InvalidArgument,
            "Expects input x to be float but datetime64[D] is provided",
        ),
        ("shout", {"x": strings("a", 3)}, None, InvalidArgument, "input x: element 1 is int, expected bytes or valid text"),  # type: ignore[arg-type]
        ("shout", {"x": strings("\ud800")}, None, InvalidArgument, "input x: element 0 is str, expected bytes or valid text"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_with_the_text_of_the_contract(
    load: Load,
    signature: str,
    inputs: dict[str, Array],
    outputs: list[str] | None,
    kind: type[PenstockError],
    message: str,
) -> None:
    with pytest.raises(kind) as caught:
        load("arithmetic", signature).run(signature, inputs, outputs)
    assert caught.value.message == message


def test_an_input_of_another_name_is_named_with_its_tensor(load: Load) -> None:
    with pytest.raises(InvalidArgument, match=r"^Signature input alias: x\(feed name: \S+\) not found in request and no") as e:
        load("arithmetic").run("half_plus_two", {"z": floats(1)})
    assert e.value.message.endswith("Inputs expected to be in the request {z}, or default input alias set: ")


def test_an_op_that_fails_says_why(load: Load, form: Form) -> None:
    model = load("arithmetic")
    is_tensorflow = form.engine == TENSORFLOW
    with pytest.raises(InvalidArgument, match=r"Incompatible shapes: \[2,3\] vs\. \[2,4\]" if is_tensorflow else "."):
        model.run("many", {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 4), np.float32)})
    if form.checks_indices:
        with pytest.raises(InvalidArgument, match=r"indices = 7 is not in \[0, 3\)" if is_tensorflow else "out of"):
            model.run("element", {"x": np.arange(3, dtype=np.int32), "index": np.array(7, np.int32)})
    assert model.run("scalar", {"x": np.float32(1).reshape(())})["y"] == 2


def test_a_run_past_its_time_is_ended(load: Load, form: Form) -> None:
    if form.engine != TENSORFLOW:
        pytest.skip("a run that was begun is not ended")
    with pytest.raises(DeadlineExceeded):
        load("arithmetic").run("count", {"steps": np.array(10**12)}, timeout_s=0.05)


def test_a_run_whose_time_is_over_does_not_begin(load: Load) -> None:
    model = load("arithmetic", "count")
    with pytest.raises(DeadlineExceeded):
        model.run("count", {"steps": np.array(1)}, timeout_s=0)
    assert model.run("count", {"steps": np.array(3)}, timeout_s=60)["total"] == 3
    assert model.run("count", {"steps": np.array(3)}, timeout_s=float(10**12))["total"] == 3


def test_a_closed_model_refuses_to_run_and_may_be_closed_again(engine: Engine, folder_of: Callable[[str], Path]) -> None:
    model = engine.load(folder_of("arithmetic"), EngineOptions())
    model.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        model.run("half_plus_two", {"x": floats(1)})
    model.close()


def test_a_missing_folder_is_named(engine: Engine, form: Form, tmp_path: Path) -> None:
    with pytest.raises(NotFound if form.engine == TENSORFLOW else FailedPrecondition, match=str(tmp_path / "nope")):
        engine.load(tmp_path / "nope", EngineOptions())


@pytest.mark.usefixtures("keeps_state")
def test_missing_tags_are_not_found(engine: Engine, exports: Path) -> None:
    with pytest.raises(NotFound, match="nope"):
        engine.load(exports / "arithmetic", EngineOptions(tags=("nope",)))


@pytest.fixture
def broken(keeps_state: None, exports: Path, tmp_path: Path) -> Path:
    """A copy of a model, to be broken."""
    return Path(shutil.copytree(exports / "stateful", tmp_path / "broken"))


@pytest.mark.parametrize("size", [0, 1, 100, -100])
def test_a_truncated_graph_is_an_error_that_names_the_folder(engine: Engine, broken: Path, size: int) -> None:
    graph = broken / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:size])
    with pytest.raises(PenstockError, match=str(broken)):
        engine.load(broken, EngineOptions())


def test_missing_variables_are_an_error(engine: Engine, broken: Path) -> None:
    (broken / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(PenstockError, match="variables"):
        engine.load(broken, EngineOptions())


def test_truncated_variables_are_an_error(engine: Engine, broken: Path) -> None:
    values = broken / "variables" / "variables.data-00000-of-00001"
    values.write_bytes(values.read_bytes()[:1000])
    with pytest.raises(PenstockError, match=str(broken)):
        engine.load(broken, EngineOptions())


def test_a_missing_op_is_named_with_the_remedy(engine: Engine, broken: Path) -> None:
    graph = broken / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"AssignAddVariableOp", b"AssignOddVariableOp"))
    with pytest.raises(NotFound, match=r"Op type not registered 'AssignOddVariableOp' .*--op-library"):
        engine.load(broken, EngineOptions())


def grown_bytes(action: Callable[[], object], times: int) -> int:
    """How much memory the process holds after `times` more calls than before."""
    for _ in range(5):
        action()
    before = psutil.Process().memory_info().rss
    for _ in range(times):
        action()
    return int(psutil.Process().memory_info().rss - before)


def test_runs_leak_nothing(load: Load) -> None:
    numbers = np.ones((4, MEBIBYTE // 16), np.float32)
    model = load("rows")
    assert grown_bytes(lambda: model.run("float32", {"x": numbers}), 200) < 50 * MEBIBYTE


def test_runs_with_strings_leak_nothing(load: Load) -> None:
    texts = strings(b"x" * MEBIBYTE, *[b"y" * 100] * 1000)
    model = load("echo", "string")
    assert grown_bytes(lambda: model.run("string", {"x": texts}), 100) < 30 * MEBIBYTE


def test_failing_runs_leak_nothing(load: Load) -> None:
    a, wrong = np.ones((512, 512), np.float32), np.ones((512, 512), np.int32)
    model = load("arithmetic")

    def fail() -> None:
        for inputs in ({"a": a, "b": wrong}, {"a": a, "b": a[:, 1:]}):
            with pytest.raises(InvalidArgument):
                model.run("many", inputs)

    assert grown_bytes(fail, 100) < 50 * MEBIBYTE


def test_failing_runs_with_strings_leak_nothing(load: Load) -> None:
    mixed = strings(b"x" * MEBIBYTE, 3)  # type: ignore[arg-type]
    model = load("arithmetic", "shout")

    def fail() -> None:
        with pytest.raises(InvalidArgument):
            model.run("shout", {"x": mixed})

    assert grown_bytes(fail, 100) < 50 * MEBIBYTE


def test_loading_and_closing_leaks_nothing(engine: Engine, folder_of: Callable[[str], Path]) -> None:
    assert grown_bytes(lambda: engine.load(folder_of("arithmetic"), EngineOptions()).close(), 15) < 20 * MEBIBYTE


def test_failing_to_load_leaks_nothing(engine: Engine, broken: Path) -> None:
    (broken / "variables" / "variables.data-00000-of-00001").unlink()

    def fail() -> None:
        with pytest.raises(PenstockError):
            engine.load(broken, EngineOptions())

    assert grown_bytes(fail, 15) < 20 * MEBIBYTE


#: What a form must be able to hold, so that nothing of it is lost unseen.
HELD = {
    "tensorflow-frozen": {"float32", "float64", "int64", "string", "bfloat16", "complex64", "int4"},
    "onnxruntime": {"float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint64", "bool", "string"},
    "openvino": {"float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint64", "bool"},
}


def test_what_an_engine_can_hold_is_converted(load: Load, form: Form) -> None:
    assert HELD.get(form.name, set()) <= load("rows").signatures.keys()
    expected = {"half_plus_two", "many", "scalar", "count", "element"}
    assert expected <= load("arithmetic").signatures.keys()
