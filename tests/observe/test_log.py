"""A line an event, for people and for machines."""

from __future__ import annotations

import json

import pytest

from penstock.observe import log


def test_text_is_one_line_with_its_level_where_it_matters(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    logger = log.get_logger("test")
    logger.info("started %d", 3)
    logger.error("broken")
    logger.debug("not shown")
    assert capsys.readouterr().err.splitlines() == ["penstock: started 3", "penstock: error: broken"]


def test_json_has_the_trace_inside(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    try:
        raise ValueError("inside")
    except ValueError:
        log.get_logger("test").exception("request %s failed", "abc")
    event = json.loads(capsys.readouterr().err)
    assert event["message"] == "request abc failed"
    assert event["level"] == "error"
    assert "ValueError: inside" in event["exception"]
