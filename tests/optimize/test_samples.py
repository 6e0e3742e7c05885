"""What a proof is made over: a user's samples, recorded requests, and what is made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.optimize.proof import Case
from penstock.optimize.samples import ROWS, given, made_up, recorded, rows_of
from penstock.tensors import DTYPES, FLOAT, STRING, Array, DType, Signature, TensorSpec, dtype_of_name

INT = dtype_of_name("int32")
Shape = tuple[int | None, ...] | None


def signature(*inputs: tuple[str, DType, Shape], name: str = "serving_default", **defaults: Array) -> Signature:
    specs = {alias: TensorSpec(alias, dtype, shape) for alias, dtype, shape in inputs}
    return Signature(name, specs, {"y": TensorSpec("y", FLOAT, (None,))}, "tensorflow/serving/predict", defaults)


ROW = signature(("x", FLOAT, (None, 3)))
ROW_ONLY = {"serving_default": ROW}
PAIR = signature(("a", FLOAT, (None, 2)), ("b", INT, (None,)))


def shapes(cases: list[Case], name: str = "x") -> set[tuple[int, ...]]:
    return {case.inputs[name].shape for case in cases}


# Made up.


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (None,), (None, 3), (2, 2), None], ids=str)
def test_every_element_type_is_made_in_its_own_type_and_shape(dtype: DType, shape: Shape) -> None:
    cases = made_up(signature(("x", dtype, shape)))
    assert cases
    for case in cases:
        array = case.inputs["x"]
        assert isinstance(array, np.ndarray)
        assert array.dtype == dtype.numpy
        if shape is not None:
            assert len(array.shape) == len(shape)
            assert all(wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True))


def test_batches_have_all_sizes() -> None:
    assert {shape[0] for shape in shapes(made_up(ROW))} == set(ROWS)
    assert {shape[0] for shape in shapes(made_up(ROW, rows=(5,)))} == {5, 2}


def test_open_dimensions_get_several_sizes() -> None:
    sizes = {shape[1] for shape in shapes(made_up(signature(("x", FLOAT, (None, None)))))}
    assert {1, 8, 16} <= sizes


def test_a_signature_without_batches_gets_its_own_shape() -> None:
    assert shapes(made_up(signature(("x", FLOAT, (4, 3))))) == {(4, 3)}


def test_floats_have_their_edges() -> None:
    by_kind = {case.what.rpartition(", ")[2]: case for case in made_up(ROW)}
    values = {kind: case.inputs["x"] for kind, case in by_kind.items()}
    assert np.all(values["zeros"] == 0)
    assert np.all(values["ones"] == 1)
    assert np.all(values["negative"] <= 0)
    assert np.abs(values["large"]).max() > 100
    assert 0 < np.abs(values["tiny"]).max() < 1e-4
    assert np.isnan(values["nan"]).any()
    assert [kind for kind, case in by_kind.items() if case.is_edge] == ["nan"]


def test_a_scalar_has_its_nan_too() -> None:
    (edge,) = [case for case in made_up(signature(("x", FLOAT, ()))) if case.is_edge]
    assert np.isnan(edge.inputs["x"])


def test_integers_are_in_the_range_of_small_tables_unless_they_are_a_guess() -> None:
    cases = made_up(signature(("x", dtype_of_name("int64"), (None, 4))))
    assert max(case.inputs["x"].max() for case in cases if not case.is_guess) < 10
    assert max(case.inputs["x"].max() for case in cases if case.is_guess) > 1 << 24
    assert min(case.inputs["x"].min() for case in cases) >= 0
    assert not any(case.is_guess for case in made_up(ROW))


def test_a_single_number_is_never_guessed_large() -> None:
    """It may be how often something is done."""
    assert max(case.inputs["x"].max() for case in made_up(signature(("x", INT, ())))) < 1 << 16


def test_complex_numbers_have_imaginary_parts() -> None:
    cases = made_up(signature(("x", dtype_of_name("complex64"), (None, 3))))
    assert any(np.abs(case.inputs["x"].imag).max() > 0.1 for case in cases)


def test_texts_are_empty_long_and_beyond_ascii() -> None:
    texts = {text for case in made_up(signature(("x", STRING, (None, 4)))) for text in case.inputs["x"].reshape(-1)}
    assert all(isinstance(text, bytes) for text in texts)
    assert b"" in texts
    assert max(map(len, texts)) > 1000
    assert any(max(text, default=0) > 127 for text in texts)
    for text in texts:
        text.decode()


def test_what_is_made_is_the_same_again() -> None:
    for one, two in zip(made_up(PAIR), made_up(PAIR), strict=True):
        assert one.what == two.what
        for name in PAIR.inputs:
            np.testing.assert_array_equal(one.inputs[name], two.inputs[name])


def test_nothing_is_made_that_fits_in_no_memory() -> None:
    assert made_up(signature(("x", FLOAT, (None, 1 << 30)))) == []
    large = made_up(signature(("x", FLOAT, (None, 1 << 20))))
    assert {shape[0] for shape in shapes(large)} == {1, 2, 7}


# A user's.


def test_an_npy_is_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(6, dtype=np.float64).reshape(2, 3))
    (case,) = given(tmp_path / "one.npy", ROW_ONLY)
    assert case.inputs["x"].dtype == np.float32
    assert case.inputs["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert case.what == "sample one.npy"


def test_an_npy_for_a_model_with_several_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UsageError, match=r"one\.npy: the model has 2 inputs; expected an \.npz"):
        given(tmp_path / "one.npy", {"serving_default": PAIR})


def test_an_npz_has_an_array_for_each_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", a=np.ones((2, 2)), b=np.array([3, 4], np.int64))
    (case,) = given(tmp_path / "both.npz", {"serving_default": PAIR})
    assert [case.inputs[name].dtype.name for name in ("a", "b")] == ["float32", "int32"]
    np.savez(tmp_path / "other.npz", a=np.ones((2, 2)), c=np.ones(2))
    with pytest.raises(UsageError, match=r"other\.npz: arrays a, c: expected a, b"):
        given(tmp_path / "other.npz", {"serving_default": PAIR})


def test_lines_are_bodies_of_predict(tmp_path: Path) -> None:
    lines = [json.dumps({"instances": [[1, 2, 3]]}), "", json.dumps({"inputs": {"x": [[4, 5, 6], [7, 8, 9]]}})]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    first, second = given(tmp_path / "lines.jsonl", ROW_ONLY)
    assert first.inputs["x"].tolist() == [[1, 2, 3]]
    assert second.inputs["x"].shape == (2, 3)
    assert second.what == "sample lines.jsonl, line 3"


def test_a_body_may_name_its_signature(tmp_path: Path) -> None:
    other = signature(("x", FLOAT, (None,)), name="other")
    (tmp_path / "one.json").write_text(json.dumps({"signature_name": "other", "inputs": [1.0]}))
    (case,) = given(tmp_path / "one.json", {**ROW_ONLY, "other": other})
    assert case.signature == "other"
    with pytest.raises(UsageError, match="no signature 'other'"):
        given(tmp_path / "one.json", ROW_ONLY)


def test_a_folder_gives_all_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "b.npy", np.ones((1, 3)))
    np.save(tmp_path / "deep" / "c.npy", np.ones((2, 3)))
    (tmp_path / "a.json").write_text(json.dumps({"instances": [[1, 2, 3]] * 3}))
    (tmp_path / "notes.txt").write_text("not a sample")
    assert [len(case.inputs["x"]) for case in given(tmp_path, ROW_ONLY)] == [3, 1, 2]


def test_a_sample_is_never_taken_for_what_was_made_up(tmp_path: Path) -> None:
    """Those that are made begin with the number of their rows, whatever a user calls a file."""
    np.save(tmp_path / "7 rows.npy", np.ones((1, 3)))
    (case,) = given(tmp_path, ROW_ONLY)
    assert not case.what[0].isdigit()
    assert all(case.what[0].isdigit() for case in made_up(ROW))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b""),
        ("a.npy", b"\x93NUMPY\x01\x00"),
        ("a.npy", b"PK\x03\x04 an archive"),
        ("a.npz", b""),
        ("a.npz", b"PK\x03\x04 no archive"),
        ("a.npz", b"neither"),
        ("a.json", b""),
        ("a.json", b"{"),
        ("a.json", b"\xff"),
        ("a.json", b'{"instances": [["a", "b", "c"]]}'),
        ("a.jsonl", b'{"instances": [[1, 2, 3]]}\n{"instances": 3'),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=str(tmp_path)):
        given(tmp_path / name, ROW_ONLY)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([{"a": 1}], object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(UsageError, match="allow_pickle"):
            given(tmp_path / name, ROW_ONLY)


def test_an_npz_that_is_an_npy_is_named(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UsageError, match=r"a\.npz"):
        given(tmp_path / "a.npz", ROW_ONLY)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nope"):
        given(tmp_path / "nope.npy", ROW_ONLY)
    with pytest.raises(UsageError, match=r"no \.npy, \.npz"):
        given(tmp_path, ROW_ONLY)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UsageError, match="holds no sample"):
        given(tmp_path, ROW_ONLY)


# Recorded.


def test_a_recorded_body_is_a_sample(tmp_path: Path) -> None:
    assert recorded(tmp_path, ROW_ONLY) == []
    folder = tmp_path / "assets.extra"
    folder.mkdir()
    (folder / "warmup.json").write_text(json.dumps({"instances": [[1, 2, 3]]}))
    (case,) = recorded(tmp_path, ROW_ONLY)
    assert (case.signature, case.what) == ("serving_default", "warmup.json")


def test_a_recorded_body_for_a_signature_that_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "warmup.json").write_text(json.dumps({"signature_name": "other", "instances": [1]}))
    assert recorded(tmp_path, ROW_ONLY) == []


# Rows for the race.


def case_of(**inputs: Array) -> Case:
    return Case("serving_default", inputs, "sample")


def test_a_batch_is_made_of_the_cases_rows_again_and_again() -> None:
    batch = rows_of([case_of(x=np.array([[1, 1, 1], [2, 2, 2]])), case_of(x=np.array([[3, 3, 3]]))], ROW, 5)
    assert batch is not None
    assert batch["x"][:, 0].tolist() == [1, 2, 3, 1, 2]


def test_inputs_of_a_row_stay_together() -> None:
    cases = [
        case_of(a=np.full((2, 2), 1.0), b=np.array([1, 1])),
        case_of(a=np.full((1, 2), 9.0), b=np.array([8, 8, 8])),  # no rows of a batch
        case_of(a=np.full((3, 2), 2.0), b=np.array([2, 2, 2])),
    ]
    batch = rows_of(cases, PAIR, 5)
    assert batch is not None
    assert batch["a"][:, 0].tolist() == batch["b"].tolist() == [1, 1, 2, 2, 2]


def test_rows_of_another_shape_are_left_out() -> None:
    batch = rows_of([case_of(x=np.ones((1, 3))), case_of(x=np.ones((4, 5)))], ROW, 2)
    assert batch is not None
    assert batch["x"].shape == (2, 3)


@pytest.mark.parametrize(
    "case",
    [
        case_of(x=np.ones((0, 3))),
        case_of(x=np.array(1.0)),
        case_of(z=np.ones((1, 3))),
        case_of(x=np.ones((1, 3)))._replace(is_edge=True),
        case_of(x=np.ones((1, 3)))._replace(signature="other"),
    ],
    ids=["empty", "scalar", "incomplete", "edge", "another signature"],
)
def test_cases_without_rows_give_no_batch(case: Case) -> None:
    assert rows_of([case], ROW, 2) is None


def test_samples_are_for_signatures_that_take_the_same_too(tmp_path: Path) -> None:
    one = Signature("serve", {"x": TensorSpec("x", FLOAT, (None, 2), "a:0")}, {})
    twin = Signature("serving_default", {"x": TensorSpec("x", FLOAT, (None, 2), "b:0")}, {})
    other = Signature("wide", {"x": TensorSpec("x", FLOAT, (None, 3), "c:0")}, {})
    np.save(tmp_path / "rows.npy", np.ones((4, 2), np.float32))
    cases = given(tmp_path, {"serve": one, "serving_default": twin, "wide": other})
    assert sorted(case.signature for case in cases) == ["serve", "serving_default"]
