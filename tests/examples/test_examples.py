"""The examples with an inference.py: each model is exported, and its handlers fit the model's signature."""

from __future__ import annotations

import csv
import fcntl
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from penstock.errors import InvalidArgument
from penstock.savedmodel.reader import read_saved_model
from penstock.tensors import Array, TensorSpec

_ROOT = Path(__file__).parents[2]
_EXAMPLES = _ROOT / "examples"
_CACHE = _ROOT / ".cache" / "test-examples"
_MODULES = ("inference", "features")

HEADER = "age,income,visits,city,plan\n"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


@functools.cache
def exported(name: str) -> Path:
    """What the example's export.py writes: once for each content of its Python files and version of what it imports."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    digest = hashlib.sha256(f"{sys.version} {importlib.metadata.version('keras')}".encode())
    for file in sorted((_EXAMPLES / name).rglob("*.py")):
        digest.update(file.read_bytes())
    target = _CACHE / name / digest.hexdigest()[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    with (_CACHE / name / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _export(name, target)
    return target


def _export(name: str, target: Path) -> None:
    """What other contents have left is removed; the folder appears by a rename."""
    for old in target.parent.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=target.parent) as work:
        folder = Path(work) / "made"
        command = [sys.executable, str(_EXAMPLES / name / "export.py"), str(folder)]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        folder.rename(target)


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """inference.py of the example that the test asks for, imported from its code folder as a server does it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(_EXAMPLES / request.param / "code"))
    for name in _MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("inference")
    for name in _MODULES:
        sys.modules.pop(name, None)


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("script", [name], indirect=True, ids=[name])


def inputs_of(script: ModuleType, body: bytes | str) -> dict[str, Array]:
    data = io.BytesIO(body.encode() if isinstance(body, str) else body)
    inputs: dict[str, Array] = script.input_handler(data, None)
    return inputs


def answer_of(script: ModuleType, **outputs: Any) -> tuple[str, str]:
    answer: tuple[str, str] = script.output_handler(SimpleNamespace(arrays=outputs), None)
    return answer


def picture(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (640, 480), color: Any = "red") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind)
    return file.getvalue()


def fits(array: Array, spec: TensorSpec) -> bool:
    """Whether an array may be fed to an input."""
    assert spec.shape is not None
    shape = all(wanted in (None, size) for wanted, size in zip(spec.shape, array.shape, strict=True))
    return shape and array.dtype == spec.dtype.numpy


BODIES = {
    "image": picture(),
    "table": (_EXAMPLES / "table" / "customers.csv").read_bytes(),
    "multitask": (_EXAMPLES / "multitask" / "page.html").read_bytes(),
}


@pytest.mark.parametrize(("script", "name"), [(name, name) for name in BODIES], indirect=["script"], ids=list(BODIES))
def test_the_inputs_are_those_of_the_exported_model(script: ModuleType, name: str) -> None:
    signature = read_saved_model(exported(name) / name / "1").signatures["serving_default"]
    inputs = inputs_of(script, BODIES[name])
    assert inputs.keys() == signature.inputs.keys()
    assert {alias for alias, array in inputs.items() if not fits(array, signature.inputs[alias])} == set()


@pytest.mark.parametrize(("script", "name"), [(name, name) for name in BODIES], indirect=["script"], ids=list(BODIES))
def test_the_answer_is_made_of_the_outputs_of_the_exported_model(script: ModuleType, name: str) -> None:
    signature = read_saved_model(exported(name) / name / "1").signatures["serving_default"]
    outputs = {alias: np.zeros([size or 1 for size in spec.shape or ()]) for alias, spec in signature.outputs.items()}
    body, content_type = answer_of(script, **outputs)
    assert body
    assert content_type == ("text/csv" if name == "table" else "application/json")


@pytest.mark.parametrize("name", list(BODIES))
def test_the_code_lies_beside_the_versions(name: str) -> None:
    code = exported(name) / name / "code"
    files = {file.name: file.read_bytes() for file in code.iterdir()}
    assert files == {file.name: file.read_bytes() for file in (_EXAMPLES / name / "code").glob("*.py")}


@pytest.mark.parametrize("name", list(BODIES))
def test_the_readme_names_files_that_are_there(name: str) -> None:
    text = (_EXAMPLES / name / "README.md").read_text()
    named = {word.strip("@`()") for word in text.split() if word.strip("@`()").startswith("examples/")}
    assert f"examples/{name}/export.py" in named
    assert {path for path in named if not (_ROOT / path).is_file()} == set()


@of("image")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(640, 480), (3000, 20), (1, 1)], ids=str)
def test_pictures_of_any_size_become_pixels(script: ModuleType, kind: str, size: tuple[int, int]) -> None:
    pixels = inputs_of(script, picture(kind, size=size))["image"]
    assert pixels.shape == (1, 224, 224, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[0, 112, 112], [255, 0, 0], atol=3)


@of("image")
@pytest.mark.parametrize(("mode", "color"), [("L", 128), ("RGBA", (128, 128, 128, 255)), ("P", 0), ("1", 1)])
def test_pictures_of_any_mode_have_three_channels(script: ModuleType, mode: str, color: Any) -> None:
    assert inputs_of(script, picture("PNG", mode, color=color))["image"].shape == (1, 224, 224, 3)


@of("image")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a picture in one of the formats JPEG, PNG, WEBP"),
        (b"<html></html>", "not a picture"),
        (picture("GIF"), "not a picture"),
        (picture()[:1000], "cannot be decoded"),
        (picture("PNG")[:100], "cannot be decoded"),
    ],
    ids=["empty", "html", "gif", "half a JPEG", "half a PNG"],
)
def test_a_body_that_is_not_a_picture_is_refused(script: ModuleType, body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        inputs_of(script, body)


@of("image")
def test_the_five_most_probable_classes_are_given(script: ModuleType) -> None:
    probabilities = np.zeros((1, 1000), np.float32)
    probabilities[0, [7, 999, 0, 31]] = [0.5, 0.25, 0.125, 0.0625]
    body, content_type = answer_of(script, probabilities=probabilities)
    assert content_type == "application/json"
    predictions = json.loads(body)["predictions"]
    assert [prediction["class"] for prediction in predictions] == [7, 999, 0, 31, 1]
    assert [prediction["probability"] for prediction in predictions] == [0.5, 0.25, 0.125, 0.0625, 0.0]


@of("table")
def test_cells_become_numbers_and_kinds(script: ModuleType) -> None:
    inputs = inputs_of(script, HEADER + "57,15000,2,Berlin,family\n27, 55000.0 ,22,Turin,free\n")
    np.testing.assert_allclose(inputs["numbers"], [[1, -1, -1], [-1, 1, 1]])
    np.testing.assert_array_equal(inputs["known"], np.ones((2, 3)))
    assert inputs["city"].tolist() == [1, 5]
    assert inputs["plan"].tolist() == [3, 1]
    assert {name: array.dtype for name, array in inputs.items()} == {
        "numbers": np.float32,
        "known": np.float32,
        "city": np.int32,
        "plan": np.int32,
    }


@of("table")
def test_missing_cells_are_usual_and_marked(script: ModuleType) -> None:
    """Empty cells, blank ones, and rows that end early; a kind that is not known is as one that is missing."""
    inputs = inputs_of(script, HEADER + ",35000,  ,,\n42\n,,,Atlantis,golden\n")
    np.testing.assert_array_equal(inputs["numbers"], np.zeros((3, 3)))
    np.testing.assert_array_equal(inputs["known"], [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert inputs["city"].tolist() == inputs["plan"].tolist() == [0, 0, 0]


@of("table")
def test_columns_are_found_by_their_names(script: ModuleType) -> None:
    """In any order, among others, quoted, behind a byte order mark, with the line ends of Windows."""
    inputs = inputs_of(script, '\ufeffplan,name,"city",visits,income,age\r\nbasic,"Doe, ""J""",LIMA,12,35000,42\r\n')
    np.testing.assert_array_equal(inputs["numbers"], [[0, 0, 0]])
    assert (inputs["city"].tolist(), inputs["plan"].tolist()) == ([3], [2])


@of("table")
def test_numbers_far_out_stay_finite(script: ModuleType) -> None:
    numbers = inputs_of(script, HEADER + "1e300,-1e300,12,,\n")["numbers"]
    np.testing.assert_array_equal(numbers, [[10, -10, 0]])


@of("table")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the header line lacks age, income, visits, city, plan"),
        ("age,income,visits,plan\n1,2,3,free\n", "the header line lacks city"),
        (HEADER, "no row below the header line"),
        (HEADER + "1,2,3,lima,free\nold,2,3,lima,free\n", "line 3, column age: expected a number, not 'old'"),
        (HEADER + "1,nan,3,lima,free\n", "line 2, column income: expected a number, not 'nan'"),
        (HEADER + "1,2,3,lima,free,more\n", "line 2 has more cells than the header line"),
        (HEADER + '1,2,3,"lima', "not CSV in UTF-8"),
        (HEADER.encode() + b"1,2,3,\xff,free\n", "not CSV in UTF-8"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_its_place(script: ModuleType, body: bytes | str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        inputs_of(script, body)


@of("table")
def test_predictions_are_a_table(script: ModuleType) -> None:
    leaves, spends = np.array([[0.25], [1.0]], np.float32), np.array([[12.345], [0.0]], np.float32)
    body, content_type = answer_of(script, leaves=leaves, spends=spends)
    assert content_type == "text/csv"
    assert list(csv.reader(io.StringIO(body))) == [["leaves", "spends"], ["0.2500", "12.35"], ["1.0000", "0.00"]]


def structure_of(script: ModuleType, page: bytes | str) -> dict[str, float]:
    names = sys.modules["features"].STRUCTURE
    return dict(zip(names, inputs_of(script, page)["structure"][0].tolist(), strict=True))


@of("multitask")
def test_words_are_numbered_by_a_hash_and_filled_up(script: ModuleType) -> None:
    words = inputs_of(script, "<p>Water <b>water</b> pipe&amp;gate</p><script>var x</script><style>p {}</style>")["words"]
    numbers = [zlib.crc32(word) % 19_999 + 1 for word in (b"water", b"water", b"pipe", b"gate")]
    assert words.dtype == np.int32
    assert words.tolist() == [numbers + [0] * 252]


@of("multitask")
def test_words_beyond_the_first_256_only_count(script: ModuleType) -> None:
    page = "<p>" + "word " * 1000
    assert (inputs_of(script, page)["words"] > 0).all()
    assert structure_of(script, page)["words"] == pytest.approx(math.log1p(1000))


@of("multitask")
def test_the_structure_is_32_numbers_about_the_page(script: ModuleType) -> None:
    page = (
        "<html><head><title>Two Words</title><meta charset=utf-8></head><body><a href='/here'>in</a>"
        "<a href='https://example.org'>out</a><a>x</a><p>AB 12<p>ab<br/><img src=y></body></html>"
    )
    structure = structure_of(script, page)
    text = "TwoWordsinoutxAB12ab"
    counts = {"a": 3, "p": 2, "meta": 1, "br": 1, "img": 1, "depth": 4, "words": 8, "distinct_words": 8}
    counts |= {"links_elsewhere": 1, "title_words": 2, "table": 0}
    assert len(structure) == 32
    assert {name: structure[name] for name in counts} == pytest.approx({name: math.log1p(n) for name, n in counts.items()})
    assert structure["digits"] == pytest.approx(2 / len(text))
    assert structure["capitals"] == pytest.approx(4 / len(text))


@of("multitask")
def test_elements_that_are_left_open_are_closed_from_outside(script: ModuleType) -> None:
    assert structure_of(script, "<ul><li>a<li>b</ul><p></b></b>")["depth"] == pytest.approx(math.log1p(3))


@of("multitask")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the script keeps nothing between pages
@example(page=b"")
@example(page=b"\xff\xfe<p>\xd0")
@example(page=b"<p>before<![foo after")
@example(page=b"<!DOCTYPE [ <!ENTITY x> ]><?pi <a href=x")
@example(page=b"&#xD800; &#99999999; <a href>")
@given(
    page=st.binary(max_size=300) | st.lists(st.sampled_from("<>![]/-?pab'\"= &;"), max_size=60).map(lambda t: "".join(t).encode())
)
def test_any_bytes_are_a_page(script: ModuleType, page: bytes) -> None:
    inputs = inputs_of(script, page)
    assert inputs["words"].shape == (1, 256)
    assert inputs["structure"].shape == (1, 32)
    assert np.isfinite(inputs["structure"]).all()


@of("multitask")
def test_a_page_that_never_closes_takes_no_longer(script: ModuleType) -> None:
    """An end tag without a start searches nothing: with a search, this is 4 · 10^8 steps."""
    structure = structure_of(script, "<p>" * 20_000 + "</b>" * 20_000)
    assert structure["depth"] == pytest.approx(math.log1p(20_000))


@of("multitask")
def test_three_outputs_are_one_answer(script: ModuleType) -> None:
    topic = np.zeros((1, 10), np.float32)
    topic[0, 8] = 0.75
    body, content_type = answer_of(script, topic=topic, is_spam=np.full((1, 1), 0.125), quality=np.full((1, 1), -1.5))
    assert content_type == "application/json"
    assert json.loads(body) == {"topic": {"name": "sports", "probability": 0.75}, "is_spam": 0.125, "quality": -1.5}


def test_the_flask_app_answers_the_same_page() -> None:
    if importlib.util.find_spec("flask") is None:
        pytest.skip("Flask is not installed")
    environment = {**_environment(), "MODEL": str(exported("multitask") / "multitask.keras")}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from flask_app import app\n"
        "print(app.test_client().post('/invocations', data=sys.stdin.buffer.read()).text)"
    )
    command = [sys.executable, "-c", code, str(_EXAMPLES / "multitask")]
    done = subprocess.run(command, env=environment, input=BODIES["multitask"], capture_output=True, check=True)
    assert json.loads(done.stdout).keys() == {"topic", "is_spam", "quality"}
