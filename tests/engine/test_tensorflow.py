"""What is TensorFlow's alone: its library, processes and threads, its own options and op libraries."""

from __future__ import annotations

import importlib.util
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.base import EngineOptions
from penstock.engine.tensorflow import TensorFlowEngine, op_names
from penstock.engine.tensorflow_library import load_library
from penstock.engine.tensorflow_options import config_proto, run_options
from penstock.engine.tensorflow_status import MAX_MESSAGE, readable
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound, PenstockError
from penstock.savedmodel.protos import ConfigProto, parse_config

X = np.array([1, 2, 5], np.float32)

#: An op in C: `PenstockDouble`, registered when the library is loaded.
OP_SOURCE = """
void* TF_NewOpDefinitionBuilder(const char*);
void TF_OpDefinitionBuilderAddInput(void*, const char*);
void TF_OpDefinitionBuilderAddOutput(void*, const char*);
void TF_RegisterOpDefinition(void*, void*);
void* TF_NewStatus(void);
void TF_DeleteStatus(void*);

__attribute__((constructor)) static void register_op(void) {
  void* builder = TF_NewOpDefinitionBuilder("PenstockDouble");
  TF_OpDefinitionBuilderAddInput(builder, "x: float");
  TF_OpDefinitionBuilderAddOutput(builder, "y: float");
  void* status = TF_NewStatus();
  TF_RegisterOpDefinition(builder, status);
  TF_DeleteStatus(status);
}
"""

FORK = """
import os, sys, threading
import numpy as np
from pathlib import Path
from penstock.engine.base import EngineOptions
from penstock.engine.tensorflow import TensorFlowEngine

before = len(os.listdir("/proc/self/task"))
engine = TensorFlowEngine()
engine.registered_ops()
assert len(os.listdir("/proc/self/task")) == before, "the library has started threads"
assert "tensorflow" not in sys.modules
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        model = engine.load(Path(sys.argv[1]), EngineOptions())
        os._exit(0 if model.run("half_plus_two", {"x": np.ones(1, np.float32)})["y"][0] == 2.5 else 1)
    children.append(child)
assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
model = engine.load(Path(sys.argv[1]), EngineOptions())
print(model.run("half_plus_two", {"x": np.ones(1, np.float32)})["y"])
"""


def run_program(source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**inherited, **environment})


def test_processes_fork_after_loading_the_library_and_before_any_model(exports: Path) -> None:
    """And neither they nor the parent write to stderr or crash at the end, with the model still open."""
    result = run_program(FORK, str(exports / "arithmetic"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "[2.5]\n", "")


def test_the_log_level_of_the_environment_is_kept() -> None:
    source = "import os; from penstock.engine.tensorflow_library import load_library; load_library()"
    source += "; os.write(2, os.environ['TF_CPP_MIN_LOG_LEVEL'].encode())"
    assert run_program(source, TF_CPP_MIN_LOG_LEVEL="0").stderr.endswith("0")
    assert run_program(source).stderr == "3"


def test_loading_with_stderr_closed_works() -> None:
    source = "import os; os.close(2); from penstock.engine.tensorflow_library import load_library; load_library()"
    assert run_program(source).returncode == 0


def test_a_missing_package_is_answered_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FailedPrecondition, match=r'pip install "penstock\[tensorflow\]"'):
        load_library.__wrapped__()


def test_a_package_without_its_libraries_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_loader("tensorflow", None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(FailedPrecondition, match=f"TensorFlow in {tmp_path} cannot be loaded"):
        load_library.__wrapped__()


@pytest.fixture(scope="session")
def tensorflow(exports: Path) -> TensorFlowEngine:
    return TensorFlowEngine()


def test_version_and_ops_are_those_of_the_library(tensorflow: TensorFlowEngine) -> None:
    assert tensorflow.version.startswith("2.")
    ops = tensorflow.registered_ops()
    assert {"MatMul", "StatefulPartitionedCall", "HashTableV2"} <= ops
    assert len(ops) > 1000
    assert all(op.replace(">", "").replace("_", "").isalnum() for op in ops)


def test_an_op_library_registers_its_ops_and_may_be_loaded_again(tensorflow: TensorFlowEngine, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make an op library with")
    source, library = tmp_path / "op.c", tmp_path / "op.so"
    source.write_text(OP_SOURCE)
    package = importlib.util.find_spec("tensorflow")
    assert package is not None
    assert package.submodule_search_locations
    link = f"-L{package.submodule_search_locations[0]}"
    names = ["-l:libtensorflow_framework.so.2", "-o", str(library)]
    subprocess.run([compiler, "-shared", "-fPIC", str(source), link, *names], check=True)
    for _ in range(2):
        assert "PenstockDouble" in TensorFlowEngine([str(library)]).registered_ops()


def test_an_op_library_that_cannot_be_loaded_is_named(tensorflow: TensorFlowEngine, exports: Path) -> None:
    with pytest.raises(NotFound, match=r"op library /nope\.so: "):
        TensorFlowEngine(["/nope.so"])
    with pytest.raises(NotFound, match=r"op library /nope\.so: "):
        tensorflow.load(exports / "arithmetic", EngineOptions(op_libraries=("/nope.so",)))


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(intra_op=2),
        EngineOptions(inter_op=2),
        EngineOptions(config=bytes([0x28, 3]), inter_op=1),
    ],
    ids=str,
)
def test_a_model_runs_with_any_threads(tensorflow: TensorFlowEngine, exports: Path, options: EngineOptions) -> None:
    model = tensorflow.load(exports / "arithmetic", options)
    np.testing.assert_array_equal(model.run("half_plus_two", {"x": X})["y"], X / 2 + 2)
    model.close()


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "not aligned"])
def test_inputs_that_are_lent_are_read_where_they_lie(
    tensorflow: TensorFlowEngine, exports: Path, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.tensorflow_tensor._BORROW_BYTES", 1 << 15)
    model = tensorflow.load(exports / "arithmetic", EngineOptions(borrows_inputs=True))
    memory = mmap.mmap(-1, 1 << 20)
    x = np.frombuffer(memory, np.float32, 100_000, offset * 4)
    for factor in (1, 2):
        x[:] = np.arange(100_000) * factor
        y = model.run("half_plus_two", {"x": x})["y"]
        np.testing.assert_array_equal(y, x / 2 + 2)
        many = x[:90_000].reshape(300, 300)
        np.testing.assert_array_equal(
            model.run("many", {"a": many, "b": many[:, ::-1][:, ::-1]}, ("difference",))["difference"], 0
        )
    model.close()


def test_inter_op_threads_are_of_the_model(tensorflow: TensorFlowEngine, exports: Path) -> None:
    """A pool of that many threads comes with the model, and goes with it."""
    process = psutil.Process()
    tensorflow.load(exports / "arithmetic", EngineOptions()).close()
    before = process.num_threads()
    model = tensorflow.load(exports / "arithmetic", EngineOptions(inter_op=5))
    assert process.num_threads() == before + 5
    model.close()
    assert process.num_threads() == before


def test_a_model_that_nobody_closed_is_freed(tensorflow: TensorFlowEngine, exports: Path) -> None:
    before = psutil.Process().num_threads()
    model = tensorflow.load(exports / "arithmetic", EngineOptions(inter_op=5))
    del model
    assert psutil.Process().num_threads() == before


def test_a_broken_configuration_is_an_error(tensorflow: TensorFlowEngine, exports: Path) -> None:
    with pytest.raises(InvalidArgument, match="session configuration: "):
        tensorflow.load(exports / "arithmetic", EngineOptions(config=b"\xff\xff"))


def test_options_are_laid_over_the_configuration_which_is_laid_over_the_defaults() -> None:
    config = bytes([0x10, 7])
    assert config_proto(EngineOptions(config=config)).endswith(config)
    assert config_proto(EngineOptions(config=config, intra_op=2, inter_op=3)).endswith(config + bytes([0x10, 2, 0x28, 3]))


def test_a_process_sees_the_gpu_and_the_part_of_its_memory_that_it_is_given() -> None:
    """What a session gets can be tested without a GPU: it is merged into the gpu_options that the user's own file has."""
    own = parse_config("gpu_options { allow_growth: true }")
    options = EngineOptions(config=own, gpu="3", gpu_memory_fraction=0.4)
    gpu_options = ConfigProto.FromString(config_proto(options)).gpu_options
    assert gpu_options.visible_device_list == "3"
    assert gpu_options.per_process_gpu_memory_fraction == 0.4
    assert gpu_options.allow_growth
    assert not ConfigProto.FromString(config_proto(EngineOptions())).HasField("gpu_options")


def test_run_options_are_a_protobuf() -> None:
    """A negative int32 has ten bytes."""
    assert run_options(-1) == b"\x10\x00\x18" + b"\xff" * 9 + b"\x01"
    assert run_options(0, 300) == b"\x10\xac\x02\x18\x00"


def test_a_message_keeps_the_innermost_node_alone() -> None:
    message = "Incompatible shapes\n\t [[{{node a/sub}}]]\n\t [[StatefulPartitionedCall]]\n\t [[other]]"
    assert readable(message) == "Incompatible shapes\n\t [[{{node a/sub}}]]"


@given(st.text(max_size=5000))
def test_a_message_is_never_longer_than_the_bound(message: str) -> None:
    assert len(readable(message)) <= MAX_MESSAGE


def test_op_names_are_read_from_an_op_list() -> None:
    name = b"Op" + b"x" * 200
    op = b"\x0a" + bytes([len(name) & 0x7F | 0x80, len(name) >> 7]) + name + b"\x12\x01a"
    op_list = (b"\x0a" + bytes([len(op) & 0x7F | 0x80, len(op) >> 7]) + op) * 2 + b"\x0a\x03\x0a\x01B"
    assert list(op_names(op_list)) == [name.decode(), name.decode(), "B"]
    assert list(op_names(b"")) == []


def test_a_signature_of_a_tensor_that_the_graph_lacks_is_refused_on_loading(
    tensorflow: TensorFlowEngine, exports: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "arithmetic", tmp_path / "broken"))
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"scalar_x:0", b"scalar_q:0"))
    with pytest.raises(PenstockError, match="scalar_q"):
        tensorflow.load(folder, EngineOptions())


def test_third_party_models_answer(tensorflow: TensorFlowEngine) -> None:
    models = Path(__file__).parents[2].parent / "shared" / "models"
    if not models.is_dir():
        pytest.skip("the models of TensorFlow Serving are not here")
    for folder in sorted(models.glob("half_plus_t*/*")):
        model = tensorflow.load(folder, EngineOptions())
        expected = X / 2 + (3 if "three" in str(folder) else 2)
        np.testing.assert_array_equal(model.run("serving_default", {"x": X})["y"], expected)
        model.close()
    counter = tensorflow.load(next((models / "counter").iterdir()), EngineOptions())
    counter.run("incr_counter", {})
    counter.run("incr_counter", {})
    assert counter.run("get_counter", {})["output"] == 2
    counter.close()
