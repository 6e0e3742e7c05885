"""kill -9 of every kind of process under load: only connections of a killed gateway may notice."""

from __future__ import annotations

import pytest

from tests.servers import wait_until
from tests.survival.bystander import CONNECTIONS, Bystander
from tests.survival.configured import ConfiguredServer
from tests.survival.killing import kill

pytestmark = pytest.mark.xdist_group("survival")


def test_a_killed_host_costs_nobody_an_answer(configured: ConfiguredServer, bystander: Bystander) -> None:
    """Neither the bystander nor the model whose process it was: its requests go to the next one."""
    with configured.serving("victim", "half_plus_two"):
        with Bystander(configured, "victim") as victim:
            victim.wait_for_answers()
            for _ in range(4):
                kill(configured, "host victim/1")
                victim.wait_for_answers()
        victim.assert_unharmed()
    assert bystander.slowest_s < 5


def test_a_killed_gateway_breaks_its_own_connections_only(configured: ConfiguredServer, bystander: Bystander) -> None:
    kills = 3
    bystander.allowed_breaks = kills * CONNECTIONS
    for turn in range(kills):
        kill(configured, f"gateway {turn % 2}")
        bystander.wait_for_answers()
        configured.one(f"gateway {turn % 2}")


def test_a_killed_zygote_is_noticed_by_nobody(configured: ConfiguredServer, bystander: Bystander) -> None:
    """A model whose process is killed right after it waits for the next zygote, and so do its requests."""
    with configured.serving("victim", "half_plus_two"):
        with Bystander(configured, "victim") as victim:
            victim.wait_for_answers()
            zygote = configured.one("zygote")
            kill(configured, "zygote")
            kill(configured, "host victim/1")
            victim.wait_for_answers()
            assert configured.one("zygote").pid != zygote.pid
        victim.assert_unharmed()


def test_all_hosts_zygote_and_gateways_at_once(configured: ConfiguredServer, bystander: Bystander) -> None:
    """The supervisor puts all of it together again, and no request is lost but for its connection."""
    bystander.allowed_breaks = 2 * CONNECTIONS
    dead = [process for title in ("zygote", "host ", "gateway ") for process in configured.processes(title)]
    for process in dead:
        process.kill()
    bystander.wait_for_answers()
    wait_until(lambda: len(configured.processes("gateway ")) == 2, "both gateways are back")
    wait_until(lambda: configured.processes("zygote"), "the zygote is back")
