"""What each part of the hot path costs, for a gateway and a host under load, as benchmarks/profile.md; with `--grpc` of Predict
by gRPC, as benchmarks/profile_grpc.md.

perf (Debian: linux-perf) says how much of the time is the kernel's, by system call; py-spy divides the rest among our
packages. (py-spy alone stops a process more often behind a system call than elsewhere: it gave reading 24 % where perf
finds 4.) CPU time per request comes from a run without either. Assumes that the models have been exported:
`python -m benchmarks.run` does that.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import calls, grpc_predict, load, machine, messages, models
from benchmarks.run import RESULTS
from benchmarks.servers import Running, launch_penstock, running
from benchmarks.throughput import TOLERANCE

PROFILE = Path(__file__).with_name("profile.md")
GRPC_PROFILE = Path(__file__).with_name("profile_grpc.md")
MODEL, CONNECTIONS, SECONDS = "perceptron", 64, 6
#: Loads the server for so many seconds.
Drive = Callable[[int], load.Sample]
_FRAME = re.compile(r"\(penstock/(?P<file>[\w/]+)\.py")
#: The kernel's functions, and what they are to us.
_SYSTEM_CALLS = {
    "ksys_write": "kernel: send an answer",
    "do_writev": "kernel: send an answer",
    "__sys_sendmsg": "kernel: send an answer",
    "ksys_read": "kernel: take in a request",
    "__sys_sendto": "kernel: send a frame",
    "__sys_recvfrom": "kernel: take in a frame",
    "do_epoll_wait": "kernel: wait for events",
}
#: Files at the root of every stack: what has no other is the event loop's own.
_ROOTS = ("cli", "app", "process/gateway")
_LIBC_CALLS = ("write", "send", "read", "recv", "epoll_")
_SHARE = re.compile(r"^\s*(?P<share>[\d.]+)%\s.*\[k\] (?P<symbol>\w+)")
#: Frames of the HTTP/2 library, and of what calls it and what it calls.
_HTTP2 = re.compile(r"\bnghttp2_|libnghttp2|_cffi_backend|\bffi_call|\bffi_closure|libffi")
_ENGINE = re.compile(r"TF_SessionRun")


def part_of(stack: list[str]) -> str | None:
    """The part of the server that a sample belongs to: the innermost of our packages, or of libnghttp2, on the stack.

    None for system calls.
    """
    if stack[-1].startswith(_LIBC_CALLS) and "libc" in stack[-1]:
        return None
    if any(_ENGINE.search(frame) for frame in stack):
        return "TensorFlow"
    is_http2 = False
    for frame in reversed(stack):
        is_http2 = is_http2 or _HTTP2.search(frame) is not None
        found = _FRAME.search(frame)
        if found and not found["file"].startswith(_ROOTS):
            package = found["file"].split("/")[0]
            # The engine calls TensorFlow through cffi as well.
            return "libnghttp2 and cffi" if is_http2 and package == "wire" else f"`{package}/`"
    return "event loop (uvloop, libuv)"


def user_shares(pid: int) -> dict[str, float]:
    """Of what a process does outside of system calls, the share of each part, by py-spy's stacks (`frame;frame;… count`)."""
    counts: Counter[str] = Counter()
    with tempfile.NamedTemporaryFile(suffix=".raw") as file:
        program = str(Path(sys.executable).with_name("py-spy"))
        options = ["--native", "--pid", str(pid), "--duration", str(SECONDS - 2), "--rate", "500", "--format", "raw"]
        subprocess.run([program, "record", *options, "--output", file.name], check=True, capture_output=True)
        for line in Path(file.name).read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            part = part_of(stack.split(";"))
            if part is not None:
                counts[part] += int(count)
    total = sum(counts.values())
    return {part: count / total for part, count in counts.most_common()}


def kernel_shares(pid: int) -> dict[str, float]:
    """Of all that a process does, the share of each system call, by perf."""
    with tempfile.NamedTemporaryFile(suffix=".data") as file:
        record = ["perf", "record", "-g", "-F", "1500", "-p", str(pid), "-o", file.name, "--", "sleep", str(SECONDS - 2)]
        subprocess.run(record, check=True, capture_output=True)
        report = ["perf", "report", "-i", file.name, "--children", "-g", "none", "--sort", "symbol", "--stdio"]
        text = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    found = {match["symbol"]: float(match["share"]) / 100 for match in map(_SHARE.match, text.splitlines()) if match}
    shares = dict.fromkeys(_SYSTEM_CALLS.values(), 0.0)
    for symbol, part in _SYSTEM_CALLS.items():
        shares[part] += found.get(symbol, 0.0)
    return shares


def profiled(server: Running, kind: str, drive: Drive) -> tuple[dict[str, float], float]:
    """The shares of the parts of a process, and the µs of CPU that it takes per request."""
    (process,) = [each for each in server.processes() if " ".join(each.cmdline()).startswith(f"penstock: {kind}")]
    before = sum(process.cpu_times()[:2])
    sample = drive(SECONDS)
    cpu_us = (sum(process.cpu_times()[:2]) - before) / sample.requests * 1e6
    found = [under_load(drive, look, process.pid) for look in (kernel_shares, user_shares)]
    rest = 1 - sum(found[0].values())
    shares = {**found[0], **{part: share * rest for part, share in found[1].items()}}
    return dict(sorted(shares.items(), key=lambda item: -item[1])), cpu_us


def under_load(drive: Drive, look: Callable[[int], dict[str, float]], pid: int) -> dict[str, float]:
    pressure = threading.Thread(target=drive, args=(SECONDS,))
    pressure.start()
    try:
        return look(pid)
    finally:
        pressure.join()


def section(kind: str, found: dict[str, float], cpu_us: float) -> list[str]:
    rows = [f"| {part} | {share * cpu_us:.1f} | {share:.0%} |" for part, share in found.items() if share >= 0.01]
    return [
        f"One {kind}: {cpu_us:.1f} µs of CPU per request.",
        "",
        "| part | µs per request | share |",
        "|---|---|---|",
        *rows,
        "",
    ]


def rest(server: Running, directory: Path) -> Drive:
    """The perceptron's row as JSON, once it is answered."""
    body = models.body_path(directory, MODEL)
    server.wait_for_answer(body.read_bytes())
    return partial(load.drive, server.launch.url, body, CONNECTIONS)


def grpc(server: Running, directory: Path, body: Path) -> Drive:
    """The same in a Predict, which is written to `body`."""
    call = messages.predict(MODEL, grpc_predict.row(directory), as_content=False)
    call.write(body)
    calls.wait_for_answer(server, call)
    size = calls.check(server, call, grpc_predict.answer(directory), TOLERANCE)
    connections, streams = grpc_predict.CONNECTIONS, grpc_predict.STREAMS
    return partial(calls.drive, server.launch.at(call.method), body, size, connections, streams)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--grpc", action="store_true", help="of Predict by gRPC, instead of a JSON row by REST")
    is_grpc: bool = parser.parse_args().grpc
    directory = RESULTS / "models"
    launch = launch_penstock([str(Path(sys.executable).with_name("penstock"))], directory, MODEL)
    with running(launch) as server, tempfile.NamedTemporaryFile() as file:
        drive = grpc(server, directory, Path(file.name)) if is_grpc else rest(server, directory)
        drive(2)
        parts = {kind: profiled(server, kind, drive) for kind in ("gateway", "host")}
    of_rest = f"one JSON row of 100 numbers, {CONNECTIONS} connections"
    of_grpc = f"Predict by gRPC, one row, {grpc_predict.CONNECTIONS} connections × {grpc_predict.STREAMS} streams"
    libraries = "protobuf" if is_grpc else "simdjson and orjson"
    lines = [
        f"Perceptron, {of_grpc if is_grpc else of_rest}, on commit {machine.commit()}.",
        f"`python -m benchmarks.profile{' --grpc' if is_grpc else ''}` repeats it: system calls by perf, the rest divided by "
        "py-spy's samples.",
        f"A package's row has all that its files call, NumPy and {libraries} too.",
        "",
    ]
    for kind, (found, cpu_us) in parts.items():
        lines += section(kind, found, cpu_us)
    (GRPC_PROFILE if is_grpc else PROFILE).write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
