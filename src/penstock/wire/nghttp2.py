"""libnghttp2, a system library, through cffi: what is declared of it, and where it is found.

ABI mode: nothing is compiled, and a machine without the library gets a clear answer instead of an import error. Callbacks are
declared with what we look at: parameters behind that are left out, and a pointer before it is a `unused` byte, because making
an object of it would cost 0.1 µs in each of a dozen calls for a request. (Both are sound where integers travel in registers.)
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import _cffi_backend
import cffi

CData = Any

#: By the name that Linux distributions, and macOS with Homebrew, have it under.
SONAMES = (
    "libnghttp2.so.14",
    "libnghttp2.so",
    "libnghttp2.14.dylib",
    "/opt/homebrew/lib/libnghttp2.dylib",
    "/usr/local/lib/libnghttp2.dylib",
)

#: Where the library is, if it is elsewhere.
ENVIRONMENT_NAME = "PENSTOCK_NGHTTP2"

DATA, HEADERS = 0, 1
#: PRIORITY, SETTINGS and PING: of no use to anyone when there are thousands.
CONTROL = frozenset({2, 4, 6})
FLAG_END_STREAM = 1
SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_INITIAL_WINDOW_SIZE = 3, 4
SETTINGS_MAX_FRAME_SIZE, SETTINGS_MAX_HEADER_LIST_SIZE = 5, 6
NO_ERROR, INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM = 0, 2, 8, 11
DATA_EOF, DATA_NO_END_STREAM, DATA_NO_COPY = 1, 2, 4
ERR_DEFERRED, ERR_TEMPORAL_CALLBACK_FAILURE = -508, -521

ffi = cffi.FFI()
#: The bytes at a `char *`, and bytes to it: what `ffi.unpack` and `ffi.memmove` call, in half their time.
unpack: Callable[[CData, int], bytes] = _cffi_backend.unpack  # type: ignore[assignment]
memmove: Callable[[CData, bytes, int], None] = _cffi_backend.memmove
ffi.cdef(
    """
    typedef uint8_t unused;
    typedef struct nghttp2_session nghttp2_session;
    typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;
    typedef struct nghttp2_option nghttp2_option;
    typedef struct { size_t length; int32_t stream_id; uint8_t type; uint8_t flags; uint8_t reserved; } nghttp2_frame_hd;
    typedef struct { char *name; char *value; size_t namelen; size_t valuelen; uint8_t flags; } nghttp2_nv;
    typedef union { int fd; void *ptr; } nghttp2_data_source;
    typedef struct { int32_t settings_id; uint32_t value; } nghttp2_settings_entry;
    typedef struct { int age; int version_num; const char *version_str; const char *proto_str; } nghttp2_info;

    typedef ptrdiff_t (*read_cb)(unused, int32_t, uint8_t *, size_t, uint32_t *);
    typedef struct { nghttp2_data_source source; read_cb read_callback; } nghttp2_data_provider;
    typedef int (*begin_cb)(void);
    typedef int (*frame_cb)(unused, const nghttp2_frame_hd *);
    typedef int (*header_cb)(unused, unused, const char *, size_t, const char *, size_t);
    typedef int (*chunk_cb)(unused, unused, int32_t, const char *, size_t);
    typedef int (*close_cb)(unused, int32_t);
    typedef int (*send_data_cb)(unused, const nghttp2_frame_hd *, const char *, size_t);

    nghttp2_info *nghttp2_version(int least_version);
    const char *nghttp2_strerror(int lib_error_code);
    int nghttp2_session_callbacks_new(nghttp2_session_callbacks **);
    void nghttp2_session_callbacks_set_on_begin_headers_callback(nghttp2_session_callbacks *, begin_cb);
    void nghttp2_session_callbacks_set_on_header_callback(nghttp2_session_callbacks *, header_cb);
    void nghttp2_session_callbacks_set_on_frame_recv_callback(nghttp2_session_callbacks *, frame_cb);
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(nghttp2_session_callbacks *, chunk_cb);
    void nghttp2_session_callbacks_set_on_stream_close_callback(nghttp2_session_callbacks *, close_cb);
    void nghttp2_session_callbacks_set_send_data_callback(nghttp2_session_callbacks *, send_data_cb);
    int nghttp2_option_new(nghttp2_option **);
    void nghttp2_option_set_no_closed_streams(nghttp2_option *, int);
    void nghttp2_option_set_no_auto_window_update(nghttp2_option *, int);
    void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *, uint64_t burst, uint64_t rate);
    int nghttp2_session_server_new2(nghttp2_session **, const nghttp2_session_callbacks *, void *, const nghttp2_option *);
    int nghttp2_session_client_new(nghttp2_session **, const nghttp2_session_callbacks *, void *);
    int32_t nghttp2_submit_request(
        nghttp2_session *, const void *priority, const nghttp2_nv *, size_t, const nghttp2_data_provider *, void *
    );
    void nghttp2_session_del(nghttp2_session *);
    ptrdiff_t nghttp2_session_mem_recv(nghttp2_session *, const char *, size_t);
    ptrdiff_t nghttp2_session_mem_send(nghttp2_session *, const char **);
    int nghttp2_session_want_read(nghttp2_session *);
    int nghttp2_session_want_write(nghttp2_session *);
    int nghttp2_session_consume(nghttp2_session *, int32_t stream_id, size_t size);
    int nghttp2_session_consume_connection(nghttp2_session *, size_t size);
    int nghttp2_session_consume_stream(nghttp2_session *, int32_t stream_id, size_t size);
    int nghttp2_session_resume_data(nghttp2_session *, int32_t);
    int nghttp2_session_set_local_window_size(nghttp2_session *, uint8_t flags, int32_t stream_id, int32_t size);
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session *);
    int nghttp2_session_terminate_session(nghttp2_session *, uint32_t error_code);
    int nghttp2_submit_settings(nghttp2_session *, uint8_t, const nghttp2_settings_entry *, size_t);
    int nghttp2_submit_response(nghttp2_session *, int32_t, const nghttp2_nv *, size_t, const nghttp2_data_provider *);
    int nghttp2_submit_trailer(nghttp2_session *, int32_t, const nghttp2_nv *, size_t);
    int nghttp2_submit_rst_stream(nghttp2_session *, uint8_t, int32_t, uint32_t);
    int nghttp2_submit_goaway(nghttp2_session *, uint8_t, int32_t, uint32_t, const uint8_t *, size_t);
    """
)


class NotThere(Exception):
    """There is no libnghttp2 on this machine; the text says what to install."""


@functools.lru_cache(maxsize=1)
def load() -> tuple[CData, str]:
    """The library, and its version with the name it was found under. Raises NotThere."""
    chosen = os.environ.get(ENVIRONMENT_NAME)
    for name in (chosen,) if chosen else SONAMES:
        try:
            library: CData = ffi.dlopen(name)
        except OSError:
            continue
        version: Any = ffi.string(library.nghttp2_version(0).version_str)
        return library, f"{version.decode()} ({name})"
    raise NotThere("libnghttp2 is not installed: Debian and Ubuntu have it as libnghttp2-14, Fedora as libnghttp2")


def fields(pairs: list[tuple[bytes, bytes]]) -> tuple[CData, int, list[CData]]:
    """Header fields for libnghttp2, their number, and what has to be kept as long as they are used."""
    array = ffi.new("nghttp2_nv[]", len(pairs))
    kept: list[CData] = []
    for index, (name, value) in enumerate(pairs):
        buffers = ffi.from_buffer(name), ffi.from_buffer(value)
        kept += buffers
        array[index].name, array[index].value = ffi.cast("char *", buffers[0]), ffi.cast("char *", buffers[1])
        array[index].namelen, array[index].valuelen = len(name), len(value)
    return array, len(pairs), kept
