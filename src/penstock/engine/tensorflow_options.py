"""ConfigProto and RunOptions as bytes: a few numbers each, in protobuf's wire format.

Of a field that occurs twice the last value counts, so that laying options over a serialized ConfigProto is appending.
"""

from __future__ import annotations

from penstock.engine.base import EngineOptions

#: RunOptions.inter_op_thread_pool: no pool.
CALLERS_THREAD = -1
SESSION_POOL = 0


def config_proto(options: EngineOptions) -> bytes:
    """The ConfigProto of a session: its own pool of `inter_op` threads, then `options.config`, then what options set.

    intra_op_parallelism_threads is field 2, inter_op_parallelism_threads 5, use_per_session_threads 9. Runs with a time
    limit need one thread of the pool even where the others use the caller's.
    """
    chosen = _number(5, options.inter_op or 1) + _number(9, 1)
    if options.intra_op:
        chosen += _number(2, options.intra_op)
    return options.config + chosen


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
