"""What was measured is there when a run goes on, and only for the same question."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.tune.curve import Curve
from penstock.tune.journal import FILE, Journal, Point
from penstock.tune.setting import AUTO, Setting
from tests.tune.curves import saturating

POINT = Point(Setting(instances=2), Curve(saturating(100.0, 10.0)), "search")


def test_a_point_is_found_again(tmp_path: Path) -> None:
    Journal(tmp_path, "question").add(POINT)
    journal = Journal(tmp_path, "question")
    assert journal.find(Setting(instances=2), "search") == POINT
    assert journal.find(Setting(instances=2), "repeat", 1) is None
    assert journal.find(AUTO, "search") is None


def test_another_question_begins_anew(tmp_path: Path) -> None:
    Journal(tmp_path, "question").add(POINT)
    assert Journal(tmp_path, "another").points == []
    assert Journal(tmp_path, "question").points == []


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    Journal(tmp_path, "question").add(POINT)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"setting": {"inst')
    again = Journal(tmp_path, "question")
    assert again.points == [POINT]
    again.add(POINT)
    del again
    assert Journal(tmp_path, "question").points == [POINT, POINT]


def test_a_folder_is_of_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "question")
    journal.add(POINT)
    with pytest.raises(UsageError, match="another process is tuning there"):
        Journal(tmp_path, "question")
    assert journal.find(POINT.setting, "search") == POINT
