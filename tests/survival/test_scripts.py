"""Scripts that do the worst: each fails alone, and its model answers again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers import error_of, wait_until
from tests.survival.bystander import Bystander
from tests.survival.configured import ConfiguredServer

pytestmark = pytest.mark.xdist_group("survival")

#: What a request wants done is its body: {"do": …}. Anything else is answered with the process's own number.
_SCRIPT = """
import ctypes, json, os, time

kept = []

def handler(data, context):
    what = json.loads(data.read()).get("do")
    if what == "allocate":
        parts = []
        while True:
            parts.append(b"x" * (16 << 20))
    elif what == "hoard":
        while True:
            kept.append(b"x" * (16 << 20))
    elif what == "leak":
        kept.append(b"x" * (64 << 20))
    elif what == "crash":
        ctypes.string_at(0)
    elif what == "exit":
        os._exit(0)
    elif what == "sleep":
        time.sleep(3600)
    elif what == "spin":
        while True:
            pass
    return json.dumps(os.getpid()).encode(), "application/json"
"""


def test_a_script_that_allocates_without_end_fails_alone(configured: ConfiguredServer, bystander: Bystander) -> None:
    """With a MemoryError, or its process is ended first: whichever comes first, its bound or the budget of all."""
    with configured.serving("greedy", "half_plus_two", _SCRIPT):
        response = configured.invoke("greedy", {"do": "allocate"})
        assert response.status_code == 500
        assert "MemoryError" in error_of(response) or "ended while its script worked" in error_of(response)
        again = configured.invoke("greedy", {})
        assert again.status_code == 200, again.text
        assert configured.host_of("greedy").memory_info().rss < 400 << 20  # of the 600 MB and more that it had


def test_a_script_that_has_used_up_its_memory_for_good_is_started_anew(
    configured: ConfiguredServer, bystander: Bystander
) -> None:
    with configured.serving("full", "half_plus_two", _SCRIPT):
        before = configured.invoke("full", {}).json()
        for _ in range(3):
            assert configured.invoke("full", {"do": "hoard"}).status_code == 500

        def is_new() -> bool:
            response = configured.invoke("full", {})
            return response.status_code == 200 and response.json() != before

        wait_until(is_new, "a new process")
        reasons = ("used up the memory", "full/1 has grown to")  # its own watch, or the budget of all, whichever looks first
        assert any(reason in line for line in configured.err for reason in reasons)


def test_a_script_that_keeps_what_it_allocates_is_started_anew(configured: ConfiguredServer, bystander: Bystander) -> None:
    """Once all models together are over the budget; one that is large, but not larger than it may become, stays as it is."""
    with configured.serving("large", "half_plus_two", _SCRIPT), configured.serving("leaky", "half_plus_two", _SCRIPT):
        large = configured.invoke("large", {"do": "leak"}).json()
        before = configured.invoke("leaky", {}).json()
        unharmed = configured.host_of("bystander").pid

        def is_new() -> bool:
            configured.invoke("leaky", {"do": "leak"})
            response = configured.invoke("leaky", {})
            return response.status_code == 200 and response.json() != before

        wait_until(is_new, "a new process")
        wait_until(lambda: any("leaky/1 has grown to" in line for line in configured.err), "the reason is told")
        assert configured.host_of("bystander").pid == unharmed
        assert configured.invoke("large", {}).json() == large


@pytest.mark.parametrize("death", ["crash", "exit"])
def test_a_script_that_ends_its_process_fails_alone(configured: ConfiguredServer, bystander: Bystander, death: str) -> None:
    with configured.serving(f"deadly-{death}", "half_plus_two", _SCRIPT):
        name = f"deadly-{death}"
        before = configured.invoke(name, {}).json()
        response = configured.invoke(name, {"do": death})
        assert response.status_code == 500
        assert "ended while its script worked" in error_of(response)
        assert configured.invoke(name, {}).json() != before


def test_a_script_that_never_returns_is_ended(configured: ConfiguredServer, bystander: Bystander) -> None:
    """Its request's time ends first; other requests are answered meanwhile, by another thread of the same process."""
    with (
        configured.serving("sleeping", "half_plus_two", _SCRIPT),
        configured.serving("spinning", "half_plus_two", _SCRIPT),
        ThreadPoolExecutor(2) as threads,
    ):
        before = {name: configured.invoke(name, {}).json() for name in ("sleeping", "spinning")}
        endless = [
            threads.submit(configured.invoke, "sleeping", {"do": "sleep"}),
            threads.submit(configured.invoke, "spinning", {"do": "spin"}),
        ]
        assert {name: configured.invoke(name, {}).json() for name in before} == before
        assert [answer.result(60).status_code for answer in endless] == [504, 504]
        for name, pid in before.items():
            wait_until(lambda: configured.host_of(name).pid != pid, "the end of the process")  # noqa: B023
            assert configured.invoke(name, {}).json() != pid


def test_a_script_that_cannot_be_imported_is_nobody_elses_matter(configured: ConfiguredServer, bystander: Bystander) -> None:
    configured.add("unimportable", "half_plus_two", "import no_such_module\n", is_awaited=False)
    try:
        wait_until(lambda: configured.states("unimportable") == ["END"], "the failure")
        response = configured.invoke("unimportable", {})
        assert response.status_code == 503
        assert "no_such_module" in error_of(response)
    finally:
        configured.drop("unimportable")
