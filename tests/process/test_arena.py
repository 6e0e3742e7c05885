"""Blocks never overlap, come back when released, and cost nothing when they are back."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.process.arena import ALIGNMENT, Arena, ArenaView, create_arena

_SIZE = 1 << 16


def test_both_sides_see_the_same_bytes() -> None:
    fd = create_arena(_SIZE)
    ours, theirs = Arena(os.dup(fd)), ArenaView(fd)
    offset = ours.allocate(100)
    assert offset is not None
    ours.view(offset, 100)[:] = 7
    assert theirs.view(offset, 100).tolist() == [7] * 100


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 9000), st.integers(-20, -1)), max_size=60))
def test_blocks_in_use_do_not_overlap_and_all_room_comes_back(steps: list[int]) -> None:
    """A positive step allocates that many bytes, a negative one releases one of those in use."""
    arena = Arena(create_arena(_SIZE))
    used: dict[int, int] = {}
    for step in steps:
        if step > 0:
            offset = arena.allocate(step)
            if offset is not None:
                assert offset % ALIGNMENT == 0
                assert offset + step <= _SIZE
                assert all(offset + step <= other or other + size <= offset for other, size in used.items())
                used[offset] = step
        elif used:
            offset = list(used)[step % len(used)]
            del used[offset]
            arena.release(offset)
    for offset in used:
        arena.release(offset)
    assert arena.used_blocks == 0
    assert arena.allocate(_SIZE) == 0


def test_a_full_arena_says_so() -> None:
    arena = Arena(create_arena(_SIZE))
    assert arena.allocate(_SIZE) == 0
    assert arena.allocate(1) is None
    assert arena.allocate(_SIZE + 1) is None


def test_releasing_what_is_not_in_use_changes_nothing() -> None:
    """The other side is not trusted with our allocator."""
    arena = Arena(create_arena(_SIZE))
    offset = arena.allocate(64)
    arena.release(128)
    arena.release(-1)
    arena.release(offset or 0)
    arena.release(offset or 0)
    assert arena.allocate(_SIZE) == 0


def test_a_view_outside_is_refused() -> None:
    arena = ArenaView(create_arena(_SIZE))
    for offset, size in ((-1, 4), (0, _SIZE + 1), (_SIZE, 1), (4, -1)):
        with pytest.raises(ValueError, match="outside"):
            arena.view(offset, size)


def test_memory_goes_back_when_nothing_is_in_use() -> None:
    fd = create_arena(256 << 20)
    arena = Arena(os.dup(fd))
    offset = arena.allocate(64 << 20)
    assert offset is not None
    arena.view(offset, 64 << 20).view(np.int64)[:] = 1
    assert os.fstat(fd).st_blocks * 512 >= 64 << 20
    arena.release(offset)
    assert os.fstat(fd).st_blocks * 512 <= 9 << 20
    os.close(fd)
