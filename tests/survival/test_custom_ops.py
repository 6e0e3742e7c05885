"""Operations that somebody has written in C++, and that do the worst: each hurts its own model alone, which answers again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.survival.bystander import Bystander
from tests.survival.configured import ConfiguredServer

pytestmark = pytest.mark.xdist_group("survival_ops")

CRASH, ALLOCATE = -666.0, -777.0

#: The op that the model `unknown_op` needs: gives back what it gets, and does worse when it gets one of two numbers.
_OP_SOURCE = f"""
#include <cstring>
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_tensor.h"

static void die() {{
  int* volatile nowhere = nullptr;
  *nowhere = 1;
}}

static void allocate() {{
  const size_t size = 16 << 20;
  for (;;) std::memset(new char[size], 1, size);
}}

static void compute(void* kernel, TF_OpKernelContext* context) {{
  TF_Status* status = TF_NewStatus();
  TF_Tensor* x = nullptr;
  TF_GetInput(context, 0, &x, status);
  const float* values = static_cast<const float*>(TF_TensorData(x));
  for (size_t i = 0; i < TF_TensorByteSize(x) / sizeof *values; i++) {{
    if (values[i] == {CRASH}f) die();
    if (values[i] == {ALLOCATE}f) allocate();
  }}
  TF_SetOutput(context, 0, x, status);
  TF_DeleteTensor(x);
  TF_DeleteStatus(status);
}}

static void infer_shape(TF_ShapeInferenceContext* context, TF_Status* status) {{
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context, 0, shape, status);
  TF_ShapeInferenceContextSetOutput(context, 0, shape, status);
  TF_DeleteShapeHandle(shape);
}}

__attribute__((constructor)) static void register_op() {{
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder("Frobni");
  TF_OpDefinitionBuilderAddAttr(op, "T: {{bfloat16, half, float, double}}");
  TF_OpDefinitionBuilderAddInput(op, "x: T");
  TF_OpDefinitionBuilderAddOutput(op, "y: T");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, infer_shape);
  TF_Status* status = TF_NewStatus();
  TF_RegisterOpDefinition(op, status);
  TF_KernelBuilder* kernel = TF_NewKernelBuilder("Frobni", "CPU", nullptr, compute, nullptr);
  TF_KernelBuilder_TypeConstraint(kernel, "T", TF_FLOAT, status);
  TF_RegisterKernelBuilder("Frobni", kernel, status);
  TF_DeleteStatus(status);
}}
"""


@pytest.fixture(scope="module")
def op_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The op, compiled."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler to make an op library with")
    package = importlib.util.find_spec("tensorflow")
    assert package is not None
    assert package.submodule_search_locations
    tensorflow = Path(package.submodule_search_locations[0])
    folder = tmp_path_factory.mktemp("op")
    source, library = folder / "frobni.cc", folder / "frobni.so"
    source.write_text(_OP_SOURCE)
    paths = [f"-I{tensorflow / 'include'}", f"-L{tensorflow}", "-l:libtensorflow_framework.so.2"]
    subprocess.run([compiler, "-shared", "-fPIC", str(source), *paths, "-o", str(library)], check=True, timeout=60)
    return library


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path, op_library: Path) -> Iterator[ConfiguredServer]:
    options = ("--gateways", "2", "--memory-budget", "600MB", "--op-library", str(op_library))
    with ConfiguredServer(tmp_path_factory.mktemp("ops"), models, *options) as server:
        yield server


@pytest.mark.parametrize(
    ("what", "endings"),
    [
        (CRASH, ["was ended by SIGSEGV"]),
        (ALLOCATE, ["was ended by SIGABRT", "has grown to"]),  # its bound or the budget of all, whichever comes first
    ],
    ids=["crashes", "allocates without end"],
)
def test_a_custom_op_that_ends_its_process_fails_alone(server: ConfiguredServer, what: float, endings: list[str]) -> None:
    """The request that did it gets an error, after a second try; the model answers again, from a new process."""
    with Bystander(server) as bystander, server.serving("custom", "unknown_op"):
        bystander.wait_for_answers()
        assert server.predict("custom", {"instances": [1.5, 2.5]}) == {"predictions": [1.5, 2.5]}
        before, unharmed = server.host_of("custom").pid, server.host_of("bystander").pid
        told = len(server.err)
        code, error = server.refuse("custom", {"instances": [what]})
        assert (code, error) == (503, "The process of model custom ended while it ran the request.")
        assert server.predict("custom", {"instances": [1.5]}) == {"predictions": [1.5]}
        assert server.host_of("custom").pid != before
        assert server.host_of("bystander").pid == unharmed
        wait_until(lambda: any(ending in line for line in server.err[told:] for ending in endings), "how it ended is told")
        bystander.wait_for_answers()
    bystander.assert_unharmed()
