"""ConfigProto and RunOptions as bytes: a few numbers each, in protobuf's wire format.

Of a field that occurs twice the last value counts, so that laying options over a serialized ConfigProto is appending.
"""

from __future__ import annotations

import struct

from penstock.config import available_cores
from penstock.engine.base import EngineOptions

#: RunOptions.inter_op_thread_pool: no pool.
CALLERS_THREAD = -1
SESSION_POOL = 0
#: device_count, a map in field 1: "GPU" to 0.
_NO_GPUS = b"\x0a\x07\x0a\x03GPU\x10\x00"


def config_proto(options: EngineOptions) -> bytes:
    """The ConfigProto of a session: our defaults, `options.config` over them, and over both what `options` sets.

    intra_op_parallelism_threads is field 2, inter_op_parallelism_threads 5, use_per_session_threads 9. The session's pool
    has a thread even where runs use the caller's: those with a time limit need it.
    """
    defaults = _number(2, default_intra_op()) + _number(5, 1) + _number(9, 1)
    chosen = b""
    if options.intra_op:
        chosen += _number(2, options.intra_op)
    if options.inter_op:
        chosen += _number(5, options.inter_op)
    if options.device == "cpu":
        chosen += _NO_GPUS
    return defaults + options.config + chosen + _gpu_options(options)


def _gpu_options(options: EngineOptions) -> bytes:
    """gpu_options is field 6; in it per_process_gpu_memory_fraction is 1, visible_device_list 5."""
    content = b""
    if options.gpu_memory_fraction:
        content += b"\x09" + struct.pack("<d", options.gpu_memory_fraction)
    if options.gpu:
        devices = options.gpu.encode()
        content += b"\x2a" + varint(len(devices)) + devices
    return b"\x32" + varint(len(content)) + content if content else b""


def default_intra_op() -> int:
    """All cores but the one that the gateway needs.

    Measured on two cores, with one thread and with two: 6.6 and 6.8 µs for half_plus_two, 19.3 and 19.8 for a perceptron
    of 100-256-256-10, 6.6 and 8.6 ms for MobileNetV2; only from batches of 32 images on were two quicker.
    """
    return max(1, available_cores() - 1)


def run_options(pool: int, timeout_ms: int = 0) -> bytes:
    """RunOptions: timeout_in_ms is field 2, inter_op_thread_pool 3."""
    return _number(2, timeout_ms) + _number(3, pool)


def _number(field: int, value: int) -> bytes:
    """An int field; negative ones are sign-extended to 64 bits."""
    return bytes([field << 3]) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, all but the last with the high bit set."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
