"""TensorFlow's C library: its declarations, where it is installed, how it is loaded.

Guarantees: `import tensorflow` never happens; loading starts no thread, so the process may fork afterwards. Assumes that
the `tensorflow` package lies beside its shared libraries, as in every wheel since 2.16 for Linux.
"""

from __future__ import annotations

import functools
import importlib.util
import secrets  # noqa: F401
import ssl  # noqa: F401
from pathlib import Path
from typing import Any, NamedTuple

import cffi

# NumPy's lazy parts and Python's OpenSSL bind their symbols before TensorFlow's copies of the same libraries come.
from penstock.engine import tensorflow_log
from penstock.errors import FailedPrecondition

#: Any, because types-cffi knows neither the names of dlopen's flags nor arrays as buffers.
ffi: Any = cffi.FFI()
ffi.cdef(
    """
    typedef struct TF_Status TF_Status;
    typedef struct TF_Tensor TF_Tensor;
    typedef struct TF_Graph TF_Graph;
    typedef struct TF_Operation TF_Operation;
    typedef struct TF_Session TF_Session;
    typedef struct TF_DeviceList TF_DeviceList;
    typedef struct TF_SessionOptions TF_SessionOptions;
    typedef struct TF_Library TF_Library;
    typedef struct TF_Buffer { const void* data; size_t length; void* deallocator; } TF_Buffer;
    typedef struct TF_Output { TF_Operation* oper; int index; } TF_Output;
    typedef struct TF_TString { uint64_t words[3]; } TF_TString;  // opaque: 24 bytes

    TF_Status* TF_NewStatus(void);
    void TF_DeleteStatus(TF_Status*);
    int TF_GetCode(const TF_Status*);
    const char* TF_Message(const TF_Status*);
    TF_Buffer* TF_NewBuffer(void);
    void TF_DeleteBuffer(TF_Buffer*);

    TF_Tensor* TF_AllocateTensor(int dtype, const int64_t* dims, int num_dims, size_t bytes);
    typedef void (*deallocator)(void* data, size_t bytes, void* argument);
    TF_Tensor* TF_NewTensor(int dtype, const int64_t* dims, int num_dims, void* data, size_t bytes, deallocator, void*);
    void TF_DeleteTensor(TF_Tensor*);
    int TF_NumDims(const TF_Tensor*);
    int64_t TF_Dim(const TF_Tensor*, int index);
    void* TF_TensorData(const TF_Tensor*);
    void TF_TensorFromProto(const TF_Buffer* tensor_proto, TF_Tensor* to, TF_Status*);
    const char* TF_StringGetDataPointer(const TF_TString*);
    void TF_StringCopy(TF_TString* to, const char* from, size_t size);
    size_t TF_StringGetSize(const TF_TString*);

    const char* TF_Version(void);
    TF_Buffer* TF_GetAllOpList(void);
    TF_Library* TF_LoadLibrary(const char* path, TF_Status*);
    void TF_DeleteLibraryHandle(TF_Library*);

    TF_SessionOptions* TF_NewSessionOptions(void);
    void TF_DeleteSessionOptions(TF_SessionOptions*);
    void TF_SetConfig(TF_SessionOptions*, const void* config_proto, size_t length, TF_Status*);
    TF_Graph* TF_NewGraph(void);
    void TF_DeleteGraph(TF_Graph*);
    TF_Operation* TF_GraphOperationByName(TF_Graph*, const char* name);
    int TF_OperationNumOutputs(TF_Operation*);
    int TF_OperationOutputType(TF_Output);
    TF_Session* TF_LoadSessionFromSavedModel(const TF_SessionOptions*, const TF_Buffer* run_options, const char* folder,
        const char* const* tags, int num_tags, TF_Graph*, TF_Buffer* meta_graph_def, TF_Status*);
    void TF_CloseSession(TF_Session*, TF_Status*);
    TF_DeviceList* TF_SessionListDevices(TF_Session*, TF_Status*);
    int TF_DeviceListCount(const TF_DeviceList*);
    const char* TF_DeviceListType(const TF_DeviceList*, int, TF_Status*);
    void TF_DeleteDeviceList(TF_DeviceList*);
    void TF_DeleteSession(TF_Session*, TF_Status*);
    void TF_SessionRun(TF_Session*, const TF_Buffer* run_options,
        const TF_Output* inputs, TF_Tensor* const* input_values, int num_inputs,
        const TF_Output* outputs, TF_Tensor** output_values, int num_outputs,
        const TF_Operation* const* targets, int num_targets, TF_Buffer* run_metadata, TF_Status*);
    """
)

#: A pointer or struct of the C library.
CData = Any


class Library(NamedTuple):
    """The two shared objects: `framework` has tensors, statuses and buffers, `core` has graphs and sessions."""

    framework: Any
    core: Any


ffi.cdef(tensorflow_log.DECLARATIONS)


@functools.cache
def load_library() -> Library:
    """Finds and loads TensorFlow. Raises FailedPrecondition where it is not installed or cannot be loaded."""
    folder = _package_folder()
    # LOCAL, because the library brings its own OpenSSL, which must not replace Python's. NODELETE, because cffi closes
    # libraries when the interpreter ends, and the exit handlers that this one has registered would then crash.
    how = ffi.RTLD_NOW | ffi.RTLD_LOCAL | ffi.RTLD_NODELETE
    try:
        with tensorflow_log.without_chatter():
            framework = ffi.dlopen(str(folder / "libtensorflow_framework.so.2"), how)
        tensorflow_log.set_level(framework)
        core = ffi.dlopen(str(folder / "libtensorflow_cc.so.2"), how)
    except OSError as error:
        raise FailedPrecondition(f"TensorFlow in {folder} cannot be loaded: {error}") from error
    return Library(framework, core)


def _package_folder() -> Path:
    try:
        spec = importlib.util.find_spec("tensorflow")
    except ValueError:  # a module that somebody has put into sys.modules by hand
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise FailedPrecondition('TensorFlow is not installed: pip install "penstock[tensorflow]"')
    return Path(next(iter(spec.submodule_search_locations)))
