"""What a process prints arrives with its name, within the bound, and a flood holds nobody up."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.script.output_guard import LineLimiter

PREAMBLE = "import os, sys, time\nfrom penstock.script.output_guard import limit_output\n"


def printed_by(program: str, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", PREAMBLE + program], capture_output=True, timeout=timeout_s, check=False)


def dropped_in(lines: list[bytes]) -> int:
    found = [re.search(r"… ([\d,]+) bytes of output dropped", line.decode(errors="replace")) for line in lines]
    return sum(int(match[1].replace(",", "")) for match in found if match)


def test_lines_get_the_prefix_and_halves_wait_for_their_rest() -> None:
    limiter = LineLimiter("half", 1000)
    assert limiter.take(b"one\ntwo\nthr", 0.0) == [b"[half] one\n", b"[half] two\n"]
    assert limiter.holds_back
    assert limiter.take(b"ee\n\n", 0.1) == [b"[half] three\n", b"[half] \n"]
    assert not limiter.holds_back
    assert limiter.take(b"end", 0.2) == []
    assert limiter.flush(0.3) == [b"[half] end\n"]
    assert limiter.flush(0.4) == []


def test_what_is_beyond_a_second_is_dropped_and_told_in_the_next() -> None:
    limiter = LineLimiter("m", 20)
    assert limiter.take(b"12345\n12345\n12345\n", 5.0) == [b"[m] 12345\n"] * 2
    assert limiter.is_dropping
    assert limiter.take(b"x" * 1_000_000, 5.9) == []
    assert limiter.take(b"\nnew\n", 6.0) == ["[m] … 1,000,006 bytes of output dropped\n".encode(), b"[m] \n", b"[m] new\n"]
    assert not limiter.holds_back


def test_a_line_longer_than_the_rest_of_the_second_ends_it() -> None:
    limiter = LineLimiter("m", 20)
    assert limiter.take(b"x" * 30 + b"\nshort\n", 0.0) == []
    assert limiter.flush(0.5) == ["[m] … 37 bytes of output dropped\n".encode()]
    assert limiter.take(b"short\n", 1.0) == [b"[m] short\n"]


def test_very_long_lines_are_cut() -> None:
    lines = LineLimiter("m", 100_000).take(b"x" * 20_000 + b"\n", 0.0)
    assert [len(line) for line in lines] == [8192 + 5, 8192 + 5, 20_000 - 2 * 8192 + 5]


@given(st.lists(st.tuples(st.binary(max_size=300), st.floats(0, 0.7))), st.integers(1, 500))
def test_every_byte_is_written_or_counted_within_the_bound(chunks: list[tuple[bytes, float]], max_bytes_per_s: int) -> None:
    limiter = LineLimiter("m", max_bytes_per_s)
    now, began, lines = 0.0, 0.0, []
    in_second = 0
    for chunk, pause in chunks:
        now += pause
        new = limiter.take(chunk, now)
        if now - began >= 1:
            began, in_second = now, 0
        in_second += sum(len(line) for line in new if not dropped_in([line]))
        assert in_second <= max_bytes_per_s
        lines += new
    lines += limiter.flush(now + 1)
    sent = b"".join(chunk for chunk, _ in chunks)
    reports = [line for line in lines if dropped_in([line])]
    written = b"".join(line[4:] for line in lines if line not in reports)
    assert len(sent) <= len(written) + dropped_in(lines) <= len(sent) + 1


def test_output_of_all_kinds_arrives_on_standard_error() -> None:
    done = printed_by(
        "print('before', flush=True)\nlimit_output('half', 10_000)\nprint('print')\nos.write(1, b'native\\n')\n"
        "os.write(2, b'error\\n')\nos.system('echo child')\nsys.stdout.write('no end')"
    )
    assert done.stdout == b"before\n"
    assert done.stderr == b"[half] print\n[half] native\n[half] error\n[half] child\n[half] no end\n"


def test_a_flood_is_dropped_quickly_and_counted() -> None:
    started = time.monotonic()
    done = printed_by("limit_output('half', 20_000)\nfor _ in range(200_000):\n    print('x' * 999)\n")
    took_s = time.monotonic() - started
    assert done.returncode == 0
    lines = done.stderr.splitlines(keepends=True)
    written = sum(len(line) - len(b"[half] ") for line in lines if not dropped_in([line]))
    assert written + dropped_in(lines) == 200_000_000
    assert took_s < 30
    assert len(done.stderr) < 25_000 * (took_s + 1)


def test_dropped_output_is_told_when_it_gets_quiet() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + "limit_output('m', 100)\nprint('x' * 500)\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().decode() == "[m] … 501 bytes of output dropped\n"
        process.communicate(timeout=10)


def test_the_trace_of_a_crash_is_not_lost() -> None:
    done = printed_by("import ctypes\nlimit_output('half', 1)\ndef fails():\n    ctypes.string_at(0)\nfails()\n")
    assert done.returncode < 0
    assert b"Segmentation fault" in done.stderr
    assert b"in fails" in done.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_our_own_log_is_neither_marked_nor_bounded(log_format: str) -> None:
    done = printed_by(
        f"from penstock.observe import log\nlog.configure({log_format!r})\nlimit_output('half', 1)\n"
        "log.get_logger('script').warning('x' * 100)"
    )
    assert b"x" * 100 in done.stderr
    assert b"half" not in done.stderr


def test_nobody_reading_standard_error_does_not_hold_the_script_up() -> None:
    program = "limit_output('half', 10**9)\nfor _ in range(2000):\n    print('x' * 999)\nsys.exit(7)"
    with subprocess.Popen([sys.executable, "-c", PREAMBLE + program], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(30) == 7


def test_finishing_gives_the_streams_back() -> None:
    done = printed_by("g = limit_output('half', 1000)\nprint('a')\ng.finish()\ng.finish()\nprint('b')")
    assert (done.stdout, done.stderr) == (b"b\n", b"[half] a\n")
