"""Memory as the kernel tells of it, from files like its own and from real processes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.models.machine_memory import memory_limit_bytes, parse_size, unique_bytes

UNLIMITED_V1 = 0x7FFFFFFFFFFFF000
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def make_proc(root: Path, cgroup: str, *mounts: str) -> Path:
    """A /proc of a process in these control groups. In `mounts`, @ is the folder where hierarchies are mounted."""
    self = root / "proc" / "self"
    self.mkdir(parents=True)
    (self / "cgroup").write_text(cgroup)
    point = str(root / "sys fs").replace(" ", r"\040")
    (self / "mountinfo").write_text("".join(f"{mount.replace('@', point)}\n" for mount in mounts))
    return root / "proc"


def set_limit(root: Path, group: str, limit: int | str) -> None:
    file = root / "sys fs" / group
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{limit}\n")


V2 = "31 23 0:26 / @ rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 / @/memory rw shared:9 - cgroup cgroup rw,memory"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"a/b/memory.max": 5000}, 5000),
        ({"a/b/memory.max": "max", "a/memory.max": 7000}, 7000),
        ({"a/b/memory.max": 9000, "a/memory.max": 7000}, 7000),
        ({"a/b/memory.max": 9000, "a/b/c/memory.max": 1, "z/memory.max": 2}, 9000),
        ({"a/b/memory.max": "max"}, PHYSICAL),
        ({"a/b/memory.max": PHYSICAL * 2}, PHYSICAL),
        ({"a/b/memory.max": "nonsense"}, PHYSICAL),
        ({}, PHYSICAL),
    ],
)
def test_the_smallest_limit_on_the_way_up_holds(tmp_path: Path, limits: dict[str, int | str], expected: int) -> None:
    for file, limit in limits.items():
        set_limit(tmp_path, file, limit)
    assert memory_limit_bytes(make_proc(tmp_path, "0::/a/b\n", V2)) == expected


def test_version_one_has_its_own_hierarchy_and_its_own_word_for_no_limit(tmp_path: Path) -> None:
    set_limit(tmp_path, "memory/docker/x/memory.limit_in_bytes", UNLIMITED_V1)
    set_limit(tmp_path, "memory/docker/memory.limit_in_bytes", 4000)
    proc = make_proc(tmp_path, "9:cpu:/else\n4:memory:/docker/x\n0::/\n", V1, "41 31 0:38 / @/unified rw - cgroup2 cgroup2 rw")
    assert memory_limit_bytes(proc) == 4000


@pytest.mark.parametrize(
    ("mount", "cgroup"),
    [
        ("35 31 0:32 /docker/x @/memory rw - cgroup cgroup rw,memory", "4:memory:/docker/x\n"),
        ("35 31 0:32 /docker/x @/memory rw - cgroup cgroup rw,memory", "4:memory,cpu:/docker/x\n"),
        ("35 31 0:32 /elsewhere @/memory rw - cgroup cgroup rw,memory", "4:memory:/docker/x\n"),
        ("35 31 0:32 / @/memory rw - cgroup cgroup rw,memory", "4:memory:/../..\n"),
    ],
    ids=["the mount begins at the group", "with another controller", "the mount shows another part", "outside of its namespace"],
)
def test_inside_a_container_the_mount_point_is_the_group(tmp_path: Path, mount: str, cgroup: str) -> None:
    set_limit(tmp_path, "memory/memory.limit_in_bytes", 3000)
    assert memory_limit_bytes(make_proc(tmp_path, cgroup, mount)) == 3000


def test_without_control_groups_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path / "no such proc") == PHYSICAL
    assert memory_limit_bytes(make_proc(tmp_path, "", "too short", "", "1 2 3 4 5 6 -")) == PHYSICAL


def test_this_machine_has_a_limit() -> None:
    assert 0 < memory_limit_bytes() <= PHYSICAL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000000", 1_000_000),
        ("1B", 1),
        ("4GB", 4_000_000_000),
        ("4g", 4_000_000_000),
        ("512MiB", 512 << 20),
        ("512 Mi", 512 << 20),
        ("1.5KiB", 1536),
        (" 2TB ", 2_000_000_000_000),
        ("1tib", 1 << 40),
        ("0.1k", 100),
        ("80%", 800),
        ("12.5 %", 125),
        ("100%", 1000),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text, whole_bytes=1000) == expected


def test_a_share_is_one_of_the_memory_that_may_be_used() -> None:
    assert parse_size("50%") == memory_limit_bytes() // 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "-1GB",
        "1e9",
        "1,5GB",
        "4 GB RAM",
        "4PB",
        "4iB",
        "4BB",
        "4bi",
        "four",
        "٤GB",
        "0",
        "0%",
        "0.4B",
        "101%",
        "4%B",
        "9" * 40,
    ],
)
def test_other_sizes_are_mistakes_of_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^size ") as caught:
        parse_size(text, whole_bytes=1000)
    assert "\n" not in str(caught.value)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes 64 MiB of its own, maps 64 MiB more that it shares with a child, and says when it has."""
    program = "import mmap, os, sys\nown = bytearray(os.urandom(1) * (64 << 20))\nprint(flush=True)\nsys.stdin.read()\n"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.communicate()


def test_what_a_process_has_for_itself_is_counted(child: subprocess.Popen[bytes]) -> None:
    assert 64 << 20 < unique_bytes(child.pid) < 128 << 20


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel has no sum of private memory")
def test_pages_shared_since_a_fork_are_not_counted() -> None:
    shared = bytearray(b"x") * (64 << 20)
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(len(shared) & 1)
    os.read(ready[0], 1)
    try:
        assert unique_bytes(pid) < 32 << 20
    finally:
        os.write(done[1], b".")
        os.waitpid(pid, 0)
        for end in (*ready, *done):
            os.close(end)


def test_a_process_that_is_gone_uses_nothing(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert unique_bytes(child.pid) == 0, "a zombie has no memory"
    child.wait()
    assert unique_bytes(child.pid) == 0


def make_process(root: Path, name: str, content: str) -> Path:
    (root / "7").mkdir(exist_ok=True)
    (root / "7" / name).write_text(content)
    return root


def test_the_sum_is_what_is_private_and_what_is_swapped_out(tmp_path: Path) -> None:
    content = (
        "00400000-7fff0000 ---p 00000000 00:00 0    [rollup]\n"
        "Rss:   900 kB\nShared_Clean:  500 kB\nPrivate_Clean:  1 kB\nPrivate_Dirty:  20 kB\n"
        "Private_Hugetlb:  300 kB\nSwap:  9999 kB\nSwapPss:  4000 kB\n"
    )
    assert unique_bytes(7, make_process(tmp_path, "smaps_rollup", content)) == 4321 * 1024


def test_without_such_a_sum_it_is_what_is_resident_and_not_of_files(tmp_path: Path) -> None:
    assert unique_bytes(7, make_process(tmp_path, "statm", "9000 700 200 50 0 6000 0\n")) == 500 * mmap.PAGESIZE
    assert unique_bytes(7, make_process(tmp_path, "statm", "")) == 0
    assert unique_bytes(8, tmp_path) == 0
