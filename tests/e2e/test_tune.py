"""`penstock tune` as a user runs it: real servers, found settings that a server takes, and what is wrong in one line."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from penstock.tune.journal import FILE as JOURNAL
from penstock.tune.result import read_tuned
from tests.e2e.model_folders import with_script
from tests.servers import PENSTOCK, Server, environment, run_penstock, wait_until

pytest.importorskip("optuna")
pytest.importorskip("psutil")
pytestmark = pytest.mark.xdist_group("tune")
#: As short as it can be: the defaults, two probes, a few settings, one round of repeats.
SHORT = ("--budget", "10s")


@pytest.fixture(scope="module")
def scripted(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """half_plus_two with a script, and in `body` what it is asked."""
    folder = with_script(models / "half_plus_two" / "1", tmp_path_factory.mktemp("models") / "scripted", "json_pair")
    (folder.parent / "body").write_text("1.0\n2.0")
    return folder


@pytest.fixture(scope="module")
def asked(scripted: Path) -> tuple[str | Path, ...]:
    """The command's arguments."""
    body = ("--body", scripted.parent / "body", "--content-type", "text/plain")
    return ("tune", scripted, *SHORT, *body, "--slo", "p99<500ms", "--set", "gateways=1")


@pytest.fixture(scope="module")
def tuned(asked: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short run has written."""
    out = tmp_path_factory.mktemp("tuned")
    ran = run_penstock(*asked, "--price", "1", "--out", out, timeout_s=240)
    assert ran.returncode == 0, ran.stderr
    assert "probe: tensorflow" in ran.stdout
    assert "penstock serve" in ran.stdout.splitlines()[-1]
    return out


def test_settings_are_measured_and_written(tuned: Path) -> None:
    result = read_tuned(tuned)
    assert result.model == "scripted"
    assert len(result.space["script_threads"]) > 1
    assert result.space["gateways"] == [1]
    assert result.grid >= 100
    assert 1 <= result.measured <= 0.15 * result.grid
    assert result.probes >= 1
    assert result.best.rate > 100
    assert result.best.low <= result.best.rate <= result.best.high
    assert result.best.cpu_us > 1
    assert result.offered
    assert result.offered[0].latency.p99 > 0
    assert "<svg" in (tuned / "report.html").read_text()
    assert "a million requests" in (tuned / "report.md").read_text()


def test_a_server_takes_the_file(tuned: Path, scripted: Path) -> None:
    with Server(scripted, "--config", tuned / "penstock.toml") as server:
        assert server.predict("scripted", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_what_was_measured_is_not_measured_again(tuned: Path, asked: tuple[str | Path, ...]) -> None:
    before = (tuned / JOURNAL).read_bytes().splitlines()
    again = run_penstock(*asked, "--out", tuned, timeout_s=240)
    assert again.returncode == 0, again.stderr
    assert (tuned / JOURNAL).read_bytes().splitlines()[: len(before)] == before


def test_an_interrupted_run_says_how_it_goes_on_and_leaves_no_server(models: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [PENSTOCK, "tune", str(models / "half_plus_two"), "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    children: list[psutil.Process] = []

    def is_serving() -> bool:
        children[:] = psutil.Process(process.pid).children(recursive=True)
        return len(children) >= 4

    try:
        wait_until(is_serving, "a server with its processes", 60)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "interrupted; the same command goes on" in said
    wait_until(lambda: not any(child.is_running() for child in children), "no server left")


def test_a_model_with_a_script_is_asked_with_a_body(scripted: Path, tmp_path: Path) -> None:
    ran = run_penstock("tune", scripted, *SHORT, "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert "--body" in ran.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--budget", "soon"), "--budget soon: expected a time"),
        (("--budget", "1s"), "at least 10s"),
        (("--slo", "fast"), "--slo fast"),
        (("--body", "nowhere"), "--body nowhere: no such file"),
        (("--samples", "nowhere"), "--samples nowhere: no such file"),
        (("--config", "nowhere"), "--config nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(models: Path, tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    ran = run_penstock("tune", models / "half_plus_two", *flags, "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_body_that_the_model_refuses_ends_it_at_once(models: Path, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"instances": ["one"]}')
    ran = run_penstock("tune", models / "half_plus_two", *SHORT, "--body", body, "--out", tmp_path / "out")
    assert ran.returncode == 1
    assert "HTTP 400" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_running_server_takes_what_was_found(tuned: Path, scripted: Path) -> None:
    with Server(scripted, "--admin-api") as server:
        before = {process.pid for process in server.processes("host ")}
        ran = run_penstock("tune", "--apply", server.url, "--out", tuned)
        assert ran.returncode == 0, ran.stderr
        assert f"{server.url} runs with" in ran.stdout
        instances = max(1, read_tuned(tuned).winner.instances)
        wait_until(lambda: len(server.processes("host ")) == instances, "the hosts of the new settings")
        assert not before & {process.pid for process in server.processes("host ")}
        assert server.predict("scripted", {"instances": [1.0]}) == {"predictions": [2.5]}
    with Server(scripted) as server:
        ran = run_penstock("tune", "--apply", server.url, "--out", tuned)
        assert ran.returncode == 1
        assert "--admin-api" in ran.stderr
