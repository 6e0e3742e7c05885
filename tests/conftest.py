"""Models and servers that many tests share; started when first asked for, once in each worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import exported_models, third_party_models
from tests.servers import Server

#: What the shared server serves; the first is the default of /invocations.
SHARED = (
    *("half_plus_two", "two_versions", "mixed", "strings", "dtypes", "scalar", "image", "batch_mean", "no_batch"),
    *("checked", "examples", "vocabulary", "counter", "slow"),
)


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the models that the tests export: `models / "half_plus_two"`."""
    return exported_models()


@pytest.fixture(scope="session")
def their_models() -> Path:
    """The folder with the models that other people made; skips where it is missing."""
    return third_party_models()


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    """A server with two gateways for tests that break nothing. To be used in the xdist group "shared"."""
    chosen = [f"--model={name}={models / name}" for name in SHARED]
    labels = ("--label", "two_versions:stable=1", "--label", "two_versions:canary=2")
    with Server(*chosen, "--versions", "all", *labels, "--gateways", "2") as running:
        yield running


@pytest.fixture(scope="session")
def third_party(their_models: Path) -> Iterator[Server]:
    """A server of other people's models. To be used in the xdist group "third_party"."""
    names = ("half_plus_two_cpu", "half_plus_two_tf2_cpu", "half_plus_two_2_versions", "half_plus_three", "counter")
    chosen = [f"--model={name}={their_models / name}" for name in names]
    with Server(*chosen, "--versions", "all", "--gateways", "2") as running:
        yield running
