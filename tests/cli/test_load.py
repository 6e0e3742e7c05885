"""`penstock.load`: a model in one's own program."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import penstock
from penstock.errors import InvalidArgument, PenstockError, UsageError


@pytest.fixture(scope="module")
def halves(models: Path) -> Iterator[penstock.LoadedModel]:
    model = penstock.load(models / "half_plus_two")
    yield model
    model.close()


def test_a_model_is_a_function_of_arrays(halves: penstock.LoadedModel) -> None:
    answer = halves(x=np.array([1, 2], np.float32))
    assert list(answer) == ["y"]
    assert answer["y"].dtype == np.float32
    assert answer["y"].tolist() == [2.5, 3.0]


def test_anything_that_is_an_array_will_do(halves: penstock.LoadedModel) -> None:
    for value in ([1.0, 2.0], (1, 2), np.array([1, 2], np.int64), np.array([1, 2], np.float64)):
        assert halves(x=value)["y"].tolist() == [2.5, 3.0]
    assert halves(x=1)["y"] == np.float32(2.5)
    assert halves(x=np.zeros((0, 3), np.float32))["y"].shape == (0, 3)


def test_arrays_that_are_not_contiguous_are_taken(halves: penstock.LoadedModel) -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    for array in (matrix.T, matrix[::2], matrix[:, ::-1], np.asfortranarray(matrix), matrix.astype(">f4")):
        assert np.array_equal(halves(x=array)["y"], array / 2 + 2)


def test_answers_outlive_the_next_call_and_inputs_stay_as_they_are(halves: penstock.LoadedModel) -> None:
    value = np.array([1, 2], np.float32)
    first = halves(x=value)["y"]
    halves(x=np.array([5, 6], np.float32))
    assert first.tolist() == [2.5, 3.0]
    assert value.tolist() == [1, 2]


def test_signatures_are_attributes(models: Path) -> None:
    model = penstock.load(models / "strings")
    assert set(model.signatures) == {"serving_default", "binary"}
    assert model.binary(text=["a"])["image_bytes"].tolist() == [b"a"]
    assert model.run({"text": ["a"]}, "binary")["image_bytes"].tolist() == [b"a"]
    assert "binary" in dir(model)
    assert "binary" in repr(model)
    with pytest.raises(AttributeError, match="has no signature 'nope'"):
        model.nope(text=["a"])
    model.close()


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "int8", "uint64", "complex64", "bool", "bfloat16", "int4", "float8_e5m2"]
)
def test_element_types_survive(models: Path, dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    signature = {"float32": "float", "float16": "half"}.get(dtype, dtype)
    model = penstock.load(models / "dtypes")
    for shape in ((), (2,), (2, 0), (1, 2, 3)):
        array = np.ones(shape, kind)
        answer = model.run({"x": array}, signature)["y"]
        assert answer.dtype == kind
        assert answer.shape == shape
        assert np.array_equal(answer, array)
    model.close()


def test_strings_and_bytes_are_taken(models: Path) -> None:
    model = penstock.load(models / "dtypes")
    for value in (["a", "grün"], np.array(["a", "grün"]), np.array([b"a", "grün".encode()], object)):
        assert model.string(x=value)["y"].tolist() == [b"a", "grün".encode()]
    data = b"\x00" * 100_000 + b"\xff"
    assert model.string(x=np.array([data, b""], object))["y"].tolist() == [data, b""]
    model.close()


def test_strings_keep_the_zeros_that_they_end_with(models: Path) -> None:
    model = penstock.load(models / "strings")
    for value in ([b"ab\0\0"], ["ab\0\0"], np.array([b"ab\0\0"], object)):
        assert model.run({"text": value}, "binary")["image_bytes"].tolist() == [b"ab\0\0"]
    with pytest.raises(InvalidArgument):
        model.run({"text": [b"a", 1]}, "binary")
    model.close()


def test_a_copy_is_the_same_model(halves: penstock.LoadedModel) -> None:
    assert copy.copy(halves)(x=[1.0])["y"].tolist() == [2.5]


def test_threads_get_their_own_answers(halves: penstock.LoadedModel) -> None:
    wrong: list[object] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait(10)
        for turn in range(200):
            value = np.full(turn % 5 + 1, number * 1000 + turn, np.float32)
            answer = halves(x=value)["y"]
            if not np.array_equal(answer, value / 2 + 2):
                wrong.append((value, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_several_models_live_side_by_side(models: Path, halves: penstock.LoadedModel) -> None:
    counters = [penstock.load(models / "counter") for _ in range(2)]
    assert [counter(by=5)["count"] for counter in counters] == [5, 5]
    assert counters[0](by=1)["count"] == 6
    assert halves(x=1.0)["y"] == 2.5
    for counter in counters:
        counter.close()


def test_what_a_model_does_not_take_is_named(halves: penstock.LoadedModel) -> None:
    with pytest.raises(InvalidArgument, match="Input x: expected float"):
        halves(x="text")
    with pytest.raises(InvalidArgument, match="Input x"):
        halves(x=[[1], [2, 3]])
    with pytest.raises(InvalidArgument, match="x"):
        halves()
    with pytest.raises(InvalidArgument, match="z"):
        halves(x=1.0, z=1.0)
    with pytest.raises(PenstockError, match="nope"):
        halves.run({"x": 1.0}, "nope")
    with pytest.raises(PenstockError, match="nope"):
        halves.run({"x": 1.0}, outputs=["nope"])


def test_errors_of_the_graph_are_ours(models: Path) -> None:
    model = penstock.load(models / "checked")
    with pytest.raises(InvalidArgument, match=r"indices\[0\] = 7 is not in \[0, 3\)"):
        model(index=[7])
    with pytest.raises(InvalidArgument, match="must not be negative"):
        model(index=[-1])
    assert model(index=[1])["value"].tolist() == [20.0]
    model.close()


@pytest.mark.parametrize("name", ["truncated", "without_variables", "unknown_op"])
def test_a_broken_model_is_an_error(models: Path, name: str) -> None:
    with pytest.raises(PenstockError, match=name):
        penstock.load(models / name)


def test_a_path_without_a_model_or_with_several_is_an_error(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        penstock.load(tmp_path / "nope")
    for name in ("scalar", "half_plus_two"):
        (tmp_path / name).symlink_to(models / name)
    with pytest.raises(UsageError, match="holds 2 models"):
        penstock.load(tmp_path)
