"""A plan is taken for the model, the machine and the library that it was made with, and for no other."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine.engines import ONNXRUNTIME, TENSORFLOW
from penstock.errors import FailedPrecondition
from penstock.models.plan import (
    AS_SAVED,
    BESIDE,
    Machine,
    Plan,
    Proof,
    Speed,
    VariantReport,
    fingerprint,
    plan_folder,
    read_plan,
    refusal,
    this_machine,
    write_plan,
)

MACHINE = Machine("x86_64", "A processor", 2, ["avx2", "fma"])
SPEEDS = [Speed(2, 1, 1, 1.5, 1.4, 1.6, 660.0), Speed(2, 1, 16, 8.0, 7.9, 8.1, 2000.0), Speed(1, 2, 16, 9.0, 8.9, 9.1, 3500.0)]
SERVE = ("serve",)
QUICK = VariantReport(
    "onnxruntime-fp32",
    ONNXRUNTIME,
    "fp32",
    "proven",
    size_bytes=1000,
    proofs=[Proof("serving_default", "y", 14, 1e-7, 1e-6, 1.0, None, "7 rows, normal")],
    speeds=SPEEDS,
    speedup=3.0,
)


def plan_of(version: Path) -> Plan:
    return Plan(
        made="2026-01-01T00:00:00+00:00",
        penstock="1",
        model="m/1",
        fingerprint=fingerprint(version),
        machine=MACHINE,
        versions={TENSORFLOW: "2.0", ONNXRUNTIME: "1.0"},
        winner=QUICK.name,
        variants=[VariantReport(AS_SAVED, TENSORFLOW, "fp32", "proven"), QUICK],
        folders={QUICK.name: QUICK.name},
        sizes={"as saved": 2000, QUICK.name: 1000},
        samples="made from the signatures",
    )


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "m" / "1"
    for name, content in (
        ("saved_model.pb", b"graph"),
        ("variables/variables.index", b"index"),
        ("variables/variables.data-00000-of-00001", b"data"),
        ("assets/words.txt", b"one\ntwo\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_what_was_written_is_read(version: Path) -> None:
    plan = plan_of(version)
    (version / BESIDE).mkdir(parents=True)
    write_plan(version / BESIDE, plan)
    assert plan_folder(version) == version / BESIDE
    assert read_plan(version / BESIDE) == plan
    assert [file.name for file in (version / BESIDE).iterdir()] == ["plan.json"]


def test_a_folder_without_a_plan_has_none(version: Path) -> None:
    assert plan_folder(version) is None
    with pytest.raises(FailedPrecondition, match=r"plan\.json: No such file"):
        read_plan(version)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"format": "one"}'],
    ids=["empty", "open", "list", "bare", "bytes", "kind"],
)
def test_a_file_that_is_no_plan_is_one_line(version: Path, content: bytes) -> None:
    (version / "plan.json").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"plan\.json: not a plan: ") as caught:
        read_plan(version)
    assert "\n" not in caught.value.message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_plan_is_read_or_refused(version: Path, data: st.DataObject) -> None:
    write_plan(version, plan_of(version))
    content = bytearray((version / "plan.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (version / "plan.json").write_bytes(content)
    with contextlib.suppress(FailedPrecondition):  # and nothing else
        read_plan(version)


def test_a_plan_of_another_format_is_refused(version: Path) -> None:
    write_plan(version, msgspec.structs.replace(plan_of(version), format=2))
    with pytest.raises(FailedPrecondition, match="format 2, expected 1"):
        read_plan(version)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a/b", "..", ""])
def test_a_plan_names_no_folder_outside_of_its_own(version: Path, name: str) -> None:
    write_plan(version, msgspec.structs.replace(plan_of(version), folders={QUICK.name: name}))
    with pytest.raises(FailedPrecondition, match="expected a name"):
        read_plan(version)


def test_a_variant_that_was_not_kept_is_not_in_the_plan(version: Path) -> None:
    plan = plan_of(version)
    assert plan.report(QUICK.name) == QUICK
    assert plan.report(AS_SAVED).engine == TENSORFLOW
    for changed, name in ((msgspec.structs.replace(plan, folders={}), QUICK.name), (plan, "openvino-fp32")):
        with pytest.raises(FailedPrecondition, match=name):
            changed.report(name)


def test_times_are_those_with_as_many_callers_as_there_are_processes_where_they_were_measured() -> None:
    speeds = [*SPEEDS, Speed(2, 2, 16, 12.0, 11.9, 12.1, 2600.0)]
    one = msgspec.structs.replace(QUICK, speeds=speeds, instances=1)
    assert one.times(2) == {1: 0.0015, 16: 0.008}
    assert one.times(1) == {16: 0.009}
    assert one.times(4) == {}
    assert msgspec.structs.replace(one, instances=2).times(2) == {1: 0.0015, 16: 0.012}


def test_a_plan_holds_where_it_was_made(version: Path) -> None:
    assert refusal(plan_of(version), QUICK, version, MACHINE, "1.0", tags=SERVE, trusts=False) == ""


@pytest.mark.parametrize(
    "name",
    [
        "saved_model.pb",
        "variables/variables.index",
        "assets/words.txt",
        "assets/more.txt",
        "variables/variables.data-00000-of-00001",
    ],
)
def test_a_changed_model_is_refused(version: Path, name: str) -> None:
    plan = plan_of(version)
    with (version / name).open("ab") as file:
        file.write(b"!")
    assert refusal(plan, QUICK, version, MACHINE, "1.0", tags=SERVE, trusts=True) == "the model has changed since"


def test_what_lies_beside_the_model_is_no_change(version: Path) -> None:
    plan = plan_of(version)
    (version / BESIDE / "onnxruntime-fp32").mkdir(parents=True)
    write_plan(version / BESIDE, plan)
    (version / "inference.py").write_text("")
    assert refusal(plan, QUICK, version, MACHINE, "1.0", tags=SERVE, trusts=False) == ""


def test_a_fingerprint_is_the_same_wherever_the_model_lies(version: Path, tmp_path: Path) -> None:
    before = fingerprint(version)
    version.rename(tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == before


def test_files_that_have_changed_places_are_another_model(version: Path) -> None:
    before = fingerprint(version)
    (version / "assets" / "words.txt").rename(version / "assets" / "other.txt")
    assert fingerprint(version) != before


def test_another_library_is_refused_by_name(version: Path) -> None:
    plan = plan_of(version)
    assert (
        refusal(plan, QUICK, version, MACHINE, "2.0", tags=SERVE, trusts=True) == "it was made with onnxruntime 1.0; 2.0 is here"
    )
    assert (
        refusal(plan, QUICK, version, MACHINE, "", tags=SERVE, trusts=True)
        == "it was made with onnxruntime 1.0; there is none here"
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Machine("aarch64", "A processor", 2, ["avx2", "fma"]), "x86_64 there, aarch64 here"),
        (Machine("x86_64", "Another", 2, ["avx2", "fma"]), "A processor there, Another here"),
        (Machine("x86_64", "A processor", 4, ["avx2", "fma"]), "cores 2 there, 4 here"),
        (Machine("x86_64", "A processor", 2, ["avx2"]), "instruction sets avx2, fma there, avx2 here"),
    ],
)
def test_another_machine_is_refused_unless_it_is_trusted(version: Path, other: Machine, words: str) -> None:
    plan = plan_of(version)
    assert refusal(plan, QUICK, version, other, "1.0", tags=SERVE, trusts=False) == f"it was made on another machine: {words}"
    assert refusal(plan, QUICK, version, other, "1.0", tags=SERVE, trusts=True) == ""


def test_a_folder_without_a_saved_model_is_what_its_plan_says(version: Path, tmp_path: Path) -> None:
    plan = plan_of(version)
    alone = tmp_path / "alone" / "1"
    alone.mkdir(parents=True)
    write_plan(alone, plan)
    assert plan_folder(alone) == alone
    assert refusal(plan, QUICK, alone, MACHINE, "1.0", tags=SERVE, trusts=False) == ""


def test_this_machine_is_like_itself() -> None:
    here = this_machine()
    assert here.difference(this_machine()) == ""
    assert here.cores >= 1
    assert here.architecture
    assert here.processor
    assert msgspec.json.decode(msgspec.json.encode(here), type=Machine) == here


def test_a_plan_is_plain_json(version: Path) -> None:
    """What other programs read: no number in it is one that JSON lacks."""
    report = msgspec.structs.replace(QUICK, speedup=math.inf)
    write_plan(version, msgspec.structs.replace(plan_of(version), variants=[report]))
    assert json.loads((version / "plan.json").read_text())["variants"][0]["speedup"] is None
