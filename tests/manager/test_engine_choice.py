"""Which engine runs a version: what is in its folder, the plan beside it, and what the options say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from penstock.engine.engines import LITERT, ONNXRUNTIME, OPENVINO, TENSORFLOW, installed_version
from penstock.errors import FailedPrecondition
from penstock.models.engine_choice import choose
from penstock.models.plan import AS_SAVED, BESIDE, Machine, Plan, VariantReport, fingerprint, this_machine, write_plan

PROVEN = VariantReport("onnxruntime-fp32", ONNXRUNTIME, "fp32", "proven", speedup=3.0, threads=2)


def version_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "m" / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"data")
    return folder


def plan_of(version: Path, **changes: object) -> Plan:
    versions = {name: installed_version(name) for name in (TENSORFLOW, ONNXRUNTIME, OPENVINO)}
    saved = VariantReport(AS_SAVED, TENSORFLOW, "fp32", "proven")
    refused = VariantReport("openvino-fp32", OPENVINO, "fp32", "refused", "it is off")
    plan = Plan(
        "2026-01-01T00:00:00+00:00",
        "1",
        "m/1",
        fingerprint(version),
        this_machine(),
        versions,
        PROVEN.name,
        [saved, PROVEN, refused],
        {PROVEN.name: PROVEN.name},
        {},
        "made",
    )
    return msgspec.structs.replace(plan, **changes)


def planned(tmp_path: Path, **changes: object) -> Path:
    version = version_folder(tmp_path)
    (version / BESIDE / PROVEN.name).mkdir(parents=True)
    write_plan(version / BESIDE, plan_of(version, **changes))
    return version


def test_a_saved_model_without_a_plan_runs_in_tensorflow(tmp_path: Path) -> None:
    version = version_folder(tmp_path)
    choice = choose(version, "auto", "auto")
    assert (choice.engine, choice.folder, choice.variant, choice.note) == (TENSORFLOW, version, None, "")


def test_a_plan_that_holds_is_taken(tmp_path: Path) -> None:
    version = planned(tmp_path)
    choice = choose(version, "auto", "auto")
    assert (choice.engine, choice.folder) == (ONNXRUNTIME, version / BESIDE / PROVEN.name)
    assert choice.variant is not None
    assert choice.variant.threads == 2
    assert choice.note == "runs as onnxruntime-fp32, 3 times as quick as TensorFlow when it was measured"


def test_a_plan_is_ignored_when_it_is_told_to_be(tmp_path: Path) -> None:
    assert choose(planned(tmp_path), "auto", "ignore").engine == TENSORFLOW


@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.index", "assets/vocabulary"])
def test_a_model_that_has_changed_makes_its_plan_void(tmp_path: Path, part: str) -> None:
    version = planned(tmp_path)
    (version / part).parent.mkdir(exist_ok=True)
    (version / part).write_bytes(b"other")
    choice = choose(version, "auto", "trust")
    assert choice.engine == TENSORFLOW
    assert choice.note == "the plan is refused: the model has changed since; penstock optimize makes another"


def test_another_machine_makes_a_plan_void_unless_it_is_trusted(tmp_path: Path) -> None:
    here = this_machine()
    version = planned(tmp_path, machine=Machine(here.architecture, here.processor, here.cores + 1, here.features))
    choice = choose(version, "auto", "auto")
    assert choice.engine == TENSORFLOW
    assert choice.note.startswith(
        f"the plan is refused: it was made on another machine: cores {here.cores + 1} there, {here.cores} here;"
    )
    assert choose(version, "auto", "trust").engine == ONNXRUNTIME


def test_another_version_of_the_library_makes_a_plan_void(tmp_path: Path) -> None:
    choice = choose(planned(tmp_path, versions={ONNXRUNTIME: "0.1"}), "auto", "trust")
    assert choice.engine == TENSORFLOW
    assert "it was made with onnxruntime 0.1; " in choice.note


def test_an_engine_that_is_asked_for_must_have_a_proven_variant(tmp_path: Path) -> None:
    version = planned(tmp_path)
    assert choose(version, ONNXRUNTIME, "auto").engine == ONNXRUNTIME
    assert choose(version, TENSORFLOW, "auto").folder == version
    with pytest.raises(FailedPrecondition, match=r"openvino-fp32 is refused \(it is off\)"):
        choose(version, OPENVINO, "auto")
    with pytest.raises(FailedPrecondition, match=r"penstock optimize .* makes and proves one"):
        choose(version_folder(tmp_path / "other"), ONNXRUNTIME, "auto")


def test_a_version_that_is_only_a_plan_has_nothing_to_fall_back_to(tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    (version / PROVEN.name).mkdir(parents=True)
    write_plan(version, plan_of(version_folder(tmp_path / "source")))
    assert choose(version, "auto", "auto").folder == version / PROVEN.name
    write_plan(version, plan_of(tmp_path / "source" / "m" / "1", versions={ONNXRUNTIME: "0.1"}))
    with pytest.raises(FailedPrecondition, match=r"the plan is refused: it was made with onnxruntime 0\.1"):
        choose(version, "auto", "auto")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff"])
def test_a_file_that_is_no_plan_leaves_the_model_to_tensorflow(tmp_path: Path, content: bytes) -> None:
    version = planned(tmp_path)
    (version / BESIDE / "plan.json").write_bytes(content)
    choice = choose(version, "auto", "auto")
    assert choice.engine == TENSORFLOW
    assert "plan.json: not a plan" in choice.note


def test_a_plan_names_no_folder_outside_of_its_own(tmp_path: Path) -> None:
    version = planned(tmp_path, folders={PROVEN.name: "../../../etc"})
    choice = choose(version, "auto", "auto")
    assert choice.engine == TENSORFLOW
    assert "expected a name" in choice.note


def test_a_model_in_onnx_alone_runs_in_onnx_runtime(tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"")
    assert choose(version, "auto", "auto").engine == ONNXRUNTIME
    with pytest.raises(FailedPrecondition, match=r"nothing in it that --engine openvino can run"):
        choose(version, OPENVINO, "auto")


def test_a_plan_is_of_one_graph(tmp_path: Path) -> None:
    version = planned(tmp_path, tags=("serve", "gpu"))
    choice = choose(version, "auto", "auto")
    assert choice.engine == TENSORFLOW
    assert "of the graph with the tags serve, gpu" in choice.note
    assert choose(version, "auto", "auto", tags=("gpu", "serve")).engine == ONNXRUNTIME


def test_a_plan_is_of_the_cpu(tmp_path: Path) -> None:
    version = planned(tmp_path)
    choice = choose(version, "auto", "auto", device="cuda")
    assert choice.engine == TENSORFLOW
    assert "made for the CPU, not for --device cuda" in choice.note
    assert choose(version, ONNXRUNTIME, "auto", device="cuda").engine == ONNXRUNTIME


def test_both_variants_are_held_to_the_plan(tmp_path: Path) -> None:
    second = msgspec.structs.replace(PROVEN, name="openvino-fp32", engine=OPENVINO)
    saved = VariantReport(AS_SAVED, TENSORFLOW, "fp32", "proven")
    versions = {TENSORFLOW: installed_version(TENSORFLOW), ONNXRUNTIME: installed_version(ONNXRUNTIME), OPENVINO: "1.0"}
    folders = {name: name for name in (PROVEN.name, second.name)}
    version = planned(tmp_path, variants=[saved, PROVEN, second], versions=versions, folders=folders)
    assert choose(version, "auto", "auto").engine == ONNXRUNTIME
    with pytest.raises(FailedPrecondition, match=r"openvino 1\.0"):
        choose(version, "auto", "auto", variants=(PROVEN.name, second.name))


def test_a_tflite_file_beside_a_saved_model_runs_where_its_engine_is_named(tmp_path: Path) -> None:
    version = version_folder(tmp_path)
    (version / "model.tflite").write_bytes(b"TFL3")
    assert choose(version, "auto", "auto").engine == TENSORFLOW
    assert choose(version, LITERT, "auto").engine == LITERT
