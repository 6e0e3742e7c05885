"""Models that cannot be served, and a config file that cannot be read: told plainly, and nobody else's matter."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.survival.bystander import Bystander
from tests.survival.configured import ConfiguredServer

pytestmark = pytest.mark.xdist_group("survival")


@pytest.mark.parametrize(
    ("exported", "reason"),
    [
        ("truncated", "saved_model.pb"),
        ("without_variables", "variables.data-00000-of-00001"),
        ("unknown_op", "Frobni"),
        ("stillborn", "ended 3 times as it started"),
    ],
)
def test_a_model_that_cannot_be_loaded(configured: ConfiguredServer, bystander: Bystander, exported: str, reason: str) -> None:
    """Its state and its answers say why, in the words of the log; it goes when it is taken out of the file."""
    configured.add(exported, exported, is_awaited=False)
    wait_until(lambda: configured.states(exported) == ["END"], "its failure")
    status = configured.get(f"/v1/models/{exported}").json()["model_version_status"][0]["status"]
    assert reason in status["error_message"]
    code, error = configured.refuse(exported, {"instances": [1.0]})
    assert code == 503
    assert reason in error
    wait_until(lambda: any(f"{exported}/1 is not served" in line for line in configured.err), "the line in the log")
    configured.drop(exported)
    wait_until(lambda: configured.states(exported) == [], f"{exported} is forgotten")
    assert not configured.processes(f"host {exported}/")


def test_a_model_that_is_mended_is_served(configured: ConfiguredServer, bystander: Bystander, models: Path) -> None:
    """Nobody has to touch the config file for that: what failed is tried again."""
    folder = configured.add("mended", "truncated", is_awaited=False)
    wait_until(lambda: configured.states("mended") == ["END"], "its failure")
    shutil.copy(models / "half_plus_two" / "1" / "saved_model.pb", folder / "1" / "saved_model.pb")
    wait_until(lambda: configured.states("mended") == ["AVAILABLE"], "it is served")
    assert configured.predict("mended", {"instances": [1.0]}) == {"predictions": [2.5]}
    configured.drop("mended")


def test_a_broken_version_leaves_the_one_before_it_served(
    configured: ConfiguredServer, bystander: Bystander, models: Path
) -> None:
    with configured.serving("upgraded", "half_plus_two") as folder, Bystander(configured, "upgraded") as upgraded:
        upgraded.wait_for_answers()
        shutil.copytree(models / "truncated" / "1", folder / "2")
        wait_until(lambda: configured.states("upgraded") == ["END", "AVAILABLE"], "the second version's failure")
        upgraded.wait_for_answers()
    upgraded.assert_unharmed()


def test_a_config_file_that_is_broken_and_mended(configured: ConfiguredServer, bystander: Bystander) -> None:
    """While it is broken, or gone, the last good one counts; the reason is told once."""
    with configured.serving("kept", "half_plus_two"), Bystander(configured, "kept") as kept:
        for broken in ("model_config_list { config { name: 'byst", "", "\0\xff", "config { name: 1 }"):
            told = len(configured.err)
            configured.write(broken)
            wait_until(lambda: len(configured.err) > told, f"the reason why {broken!r} is refused")  # noqa: B023
            assert "models.config" in configured.err[-1]
        told = len(configured.err)
        (configured.folder / "models.config").unlink()
        wait_until(lambda: len(configured.err) > told, "the reason why nothing is read")
        kept.wait_for_answers()
        assert len(configured.err) == told + 1
        configured.write(configured.config())
        configured.add("mended-with-it", "half_plus_two")
        configured.drop("mended-with-it")
    kept.assert_unharmed()
