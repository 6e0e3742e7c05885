"""A process for what may crash or hang: whatever it does, there is an answer or a reason, in time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock.errors import FailedPrecondition
from penstock.optimize.child import Child, ChildError, one_line

ANSWER_S = 60.0


class Worker:
    """What lives in the child."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise ValueError("start below zero")
        self._count = start

    def add(self, number: int) -> int:
        self._count += number
        return self._count

    def pid(self) -> int:
        return os.getpid()

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def large(self, size: int) -> bytes:
        return bytes(size)

    def length(self, content: bytes) -> int:
        return len(content)

    def refuse(self) -> None:
        raise FailedPrecondition("not today")

    def fail(self) -> None:
        raise ValueError("it is\n   wrong\n\n" + "x" * 5000)

    def leave(self, code: int) -> None:
        print("before the end", flush=True)
        sys.exit(code)

    def die(self, number: int) -> None:
        os.write(2, b"the last\n\nwords\n")
        os.kill(os.getpid(), number)

    def die_silently(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self) -> None:
        signal.pause()

    def lambdas(self) -> Callable[[], None]:
        return lambda: None

    def chatter(self) -> None:
        print("much of it\n" * 100_000)
        os.abort()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    with Child(tmp_path / "child.log", Worker) as child:
        yield child


def test_methods_run_on_one_object_in_another_process(tmp_path: Path) -> None:
    with Child(tmp_path / "child.log", Worker, 40) as child:
        assert child.call("add", 1, timeout_s=ANSWER_S) == 41
        assert child.call("add", 1, timeout_s=ANSWER_S) == 42
        assert child.call("pid", timeout_s=ANSWER_S) == child.pid != os.getpid()


def test_large_things_travel_both_ways(child: Child) -> None:
    size = 8 << 20
    assert len(child.call("large", size, timeout_s=ANSWER_S)) == size
    assert child.call("length", bytes(size), timeout_s=ANSWER_S) == size


def test_an_error_is_the_reason_and_the_process_goes_on(child: Child) -> None:
    with pytest.raises(ChildError, match=r"^not today$"):
        child.call("refuse", timeout_s=ANSWER_S)
    with pytest.raises(ChildError, match=r"^ValueError: it is wrong xxx") as caught:
        child.call("fail", timeout_s=ANSWER_S)
    assert len(str(caught.value)) <= 600
    assert child.call("add", 1, timeout_s=ANSWER_S) == 1


def test_an_object_that_cannot_be_made_is_the_reason(tmp_path: Path) -> None:
    with Child(tmp_path / "child.log", Worker, -1) as child, pytest.raises(ChildError, match="start below zero"):
        child.call("pid", timeout_s=ANSWER_S)


@pytest.mark.parametrize(
    ("method", "arguments", "reason"),
    [
        ("leave", (3,), "its process ended with exit code 3: before the end"),
        ("leave", (0,), "its process ended with exit code 0: before the end"),
        ("die", (signal.SIGSEGV,), "its process was ended by SIGSEGV: the last / words"),
        ("die", (signal.SIGABRT,), "its process was ended by SIGABRT: the last / words"),
        ("die_silently", (), "its process was ended by SIGKILL"),
    ],
)
def test_a_crash_is_told_with_the_last_words(child: Child, method: str, arguments: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ChildError) as caught:
        child.call(method, *arguments, timeout_s=ANSWER_S)
    assert str(caught.value) == reason
    assert not psutil.pid_exists(child.pid)


def test_the_last_words_are_not_those_of_a_process_before(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("an old error\n")
    with Child(log, Worker) as child, pytest.raises(ChildError) as caught:
        child.call("die_silently", timeout_s=ANSWER_S)
    assert "old" not in str(caught.value)
    assert log.read_text().startswith("an old error")


def test_a_long_log_gives_only_its_end(child: Child) -> None:
    with pytest.raises(ChildError, match=r"SIGABRT: .*much of it") as caught:
        child.call("chatter", timeout_s=ANSWER_S)
    assert len(str(caught.value)) < 1000


def test_a_process_that_is_silent_for_too_long_is_ended(child: Child) -> None:
    with pytest.raises(ChildError, match=r"^no answer within 0\.2 s$"):
        child.call("hang", timeout_s=0.2)
    assert not psutil.pid_exists(child.pid)


def test_a_process_that_takes_no_more_is_ended(child: Child) -> None:
    """The question is larger than the pipe: it is the sending that would wait for ever."""
    assert child.call("length", b"", timeout_s=ANSWER_S) == 0
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(ChildError, match=r"^no answer within 0\.5 s$"):
        child.call("length", bytes(16 << 20), timeout_s=0.5)
    assert not psutil.pid_exists(child.pid)


def test_after_its_end_every_question_gets_a_reason(child: Child) -> None:
    child.end()
    child.end()
    with pytest.raises(ChildError, match=r"^its process "):
        child.call("pid", timeout_s=ANSWER_S)


def test_an_answer_that_cannot_travel_is_a_reason(child: Child) -> None:
    with pytest.raises(ChildError, match="ickle"):
        child.call("lambdas", timeout_s=ANSWER_S)


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with Child(tmp_path / "child.log", Worker) as child:
        process = psutil.Process(child.call("pid", timeout_s=ANSWER_S))
    assert not process.is_running()


def test_its_environment_is_set_and_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_CHANGED", "before")
    monkeypatch.delenv("PENSTOCK_TEST_NEW", raising=False)
    wanted = {"PENSTOCK_TEST_CHANGED": "within", "PENSTOCK_TEST_NEW": "new"}
    with Child(tmp_path / "child.log", Worker, environment=wanted) as child:
        assert {name: child.call("environment", name, timeout_s=ANSWER_S) for name in wanted} == wanted
    assert os.environ["PENSTOCK_TEST_CHANGED"] == "before"
    assert "PENSTOCK_TEST_NEW" not in os.environ


def test_an_interrupt_on_the_terminal_is_not_for_it(child: Child) -> None:
    assert child.call("add", 1, timeout_s=ANSWER_S) == 1
    os.kill(child.pid, signal.SIGINT)
    assert child.call("add", 1, timeout_s=ANSWER_S) == 2


def test_an_error_in_one_line() -> None:
    assert one_line(ValueError("a\n  b\n")) == "ValueError: a b"
    assert one_line(KeyError("x")) == "KeyError: 'x'"
