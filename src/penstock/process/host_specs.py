"""What a host is told when it is forked: the options of the server, made out for one instance of one version."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from penstock.config import ServeOptions, cache_folder
from penstock.models.engine_choice import Choice
from penstock.models.version import Version
from penstock.process.messages import BatchingSpec, HostSpec, QuickSpec, ScriptSpec
from penstock.wire import http2

#: Folders above a version in which its `code` folder is looked for.
_LEVELS = 4


class HostSpecs:
    """Makes them. `port` is the first that the server listens on, `memory_bytes` what one host may allocate at the most."""

    def __init__(self, options: ServeOptions, session_config: bytes, port: int, memory_bytes: int) -> None:
        """Raises UsageError for options that cannot be meant."""
        self._options = options
        self._session_config = session_config
        self._rest_url = rest_url(options, port)
        self._grpc_port, self._grpc_target = grpc_place(options, port, has_http2=http2.is_there())
        self._memory_bytes = memory_bytes
        self._cores = sorted(os.sched_getaffinity(0)) if options.pin_cores and hasattr(os, "sched_getaffinity") else []
        self._batching = batching_spec(options)
        self._gpus = [gpu.strip() for gpu in options.gpus.split(",") if gpu.strip()]

    def free_core(self, taken: Iterable[int | None]) -> int | None:
        """The core that fewest of those that are `taken` are, for a new host to be pinned to; None where hosts are not pinned."""
        counts = Counter(taken)
        return min(self._cores, key=lambda core: counts[core], default=None)

    def spec(self, host: int, version: Version, instance: int, core: int | None) -> HostSpec:
        options, choice = self._options, version.choice
        assert choice is not None  # made when the version is loaded
        return HostSpec(
            host,
            version.model,
            version.version,
            str(version.path),
            options.tag_names,
            options.intra_op or version.threads or (choice.variant.threads if choice.variant else 0),
            options.inter_op,
            self._session_config,
            self._batching,
            instance,
            self._memory_bytes,
            core,
            self._gpus[instance % len(self._gpus)] if self._gpus else "",
            options.gpu_memory_fraction,
            options.warm_up,
            ScriptSpec(
                [str(folder) for folder in code_folders(version)],
                options.script or None,
                str(cache_folder()),
                self._rest_url,
                str(self._grpc_port or ""),
                self._grpc_target,
                options.request_timeout_s,
                options.script_threads,
                options.reload,
            ),
            choice.engine,
            str(choice.folder),
            options.device,
            choice.variant.times(options.intra_op or choice.variant.threads) if choice.variant else {},
            _quick(choice, options.variant_latency_ms),
            is_timed=not (options.instances or options.intra_op or version.instances or choice.variant or instance),
        )


def _quick(choice: Choice, latency_ms: float) -> QuickSpec | None:
    """The second variant of --variants."""
    if choice.quick is None or choice.variant is None:
        return None
    return QuickSpec(choice.variant.name, choice.quick.variant.name, choice.quick.engine, str(choice.quick.folder), latency_ms)


def rest_url(options: ServeOptions, port: int) -> str:
    """Where a script finds this server's REST API."""
    scheme = "https" if options.tls_cert and not options.tls_grpc_only else "http"
    return f"{scheme}://{_own_address(options.host)}:{port}"


def grpc_place(options: ServeOptions, port: int, *, has_http2: bool) -> tuple[int, str]:
    """The port that speaks gRPC, 0 where none does; and where a script may speak it in the clear, as grpcio writes addresses,
    empty where it may not. Without HTTP/2 of our own it is grpcio that answers, on its port alone."""
    if has_http2 and options.unix_socket:
        return port, f"unix:{os.path.abspath(options.unix_socket)}"
    if not has_http2:
        port = options.grpc_port
    is_secure = bool(options.tls_cert) and not (has_http2 and options.tls_grpc_only)
    return port, f"{_own_address(options.host)}:{port}" if port and not is_secure else ""


def _own_address(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    address = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    return f"[{address}]" if ":" in address else address


def batching_spec(options: ServeOptions) -> BatchingSpec:
    """How all versions batch; with files of their own, those that have none do not. Raises UsageError."""
    if options.model_batching:
        return BatchingSpec(max_rows=1, timeout_us=0, has_file=True)
    return BatchingSpec(
        options.max_batch_size,
        options.batch_timeout_us,
        options.max_request_rows,
        options.split_large,
        options.allowed_rows,
        options.pad_variable_lengths,
        target_ms=options.latency_target_ms,
    )


def code_folders(version: Version) -> list[Path]:
    """Where a version's script may be: `code` beside it and in the folders above, up to that of its model's files."""
    root = version.root or version.path.parent
    folders = [version.path / "code"]
    for parent in list(version.path.parents)[:_LEVELS]:
        if parent != root and root not in parent.parents:
            break
        folders.append(parent / "code")
    return folders
