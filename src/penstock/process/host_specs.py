"""What a host is told when it is forked: the options of the server, made out for one instance of one version."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from penstock.config import ServeOptions, cache_folder
from penstock.models.version import Version
from penstock.process.messages import BatchingSpec, HostSpec, ScriptSpec

#: Folders above a version in which its `code` folder is looked for.
_LEVELS = 4


class HostSpecs:
    """Makes them. `rest_url` is where scripts find this server, `memory_bytes` what one host may allocate at the most."""

    def __init__(self, options: ServeOptions, session_config: bytes, rest_url: str, port: int, memory_bytes: int) -> None:
        """Raises UsageError for options that cannot be meant."""
        self._options = options
        self._session_config = session_config
        self._rest_url = rest_url
        self._port = port
        self._memory_bytes = memory_bytes
        self._cores = sorted(os.sched_getaffinity(0)) if options.pin_cores and hasattr(os, "sched_getaffinity") else []
        self._batching = batching_spec(options)
        self._gpus = [gpu.strip() for gpu in options.gpus.split(",") if gpu.strip()]

    def free_core(self, taken: Iterable[int | None]) -> int | None:
        """The core that fewest of those that are `taken` are, for a new host to be pinned to; None where hosts are not pinned."""
        counts = Counter(taken)
        return min(self._cores, key=lambda core: counts[core], default=None)

    def spec(self, host: int, version: Version, instance: int, core: int | None) -> HostSpec:
        options = self._options
        return HostSpec(
            host,
            version.model,
            version.version,
            str(version.path),
            tuple(options.tags.split(",")),
            options.intra_op,
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
                self._port,
                options.request_timeout_s,
                options.script_threads,
                options.reload,
            ),
            options.prefer_tflite,
        )


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
