"""The two servers that the tests here share: what they break is their own model's, and must stay so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.survival.bystander import Bystander
from tests.survival.configured import ConfiguredServer
from tests.survival.multi_model import MultiModelServer


@pytest.fixture(scope="session")
def configured(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[ConfiguredServer]:
    """Two gateways, a small budget, little patience. To be used in the xdist group "survival"."""
    options = ("--gateways", "2", "--memory-budget", "600MB", "--request-timeout-s", "8")
    with ConfiguredServer(tmp_path_factory.mktemp("configured"), models, *options) as server:
        yield server


@pytest.fixture
def bystander(configured: ConfiguredServer) -> Iterator[Bystander]:
    """Asks the model beside the test's own all the time; all its answers are right, on connections that hold.

    Only a test that kills gateways may break connections, and says so with `allowed_breaks`.
    """
    with Bystander(configured) as asking:
        asking.wait_for_answers()
        yield asking
        asking.wait_for_answers()
    asking.assert_unharmed()


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[MultiModelServer]:
    """A multi-model endpoint with two gateways. To be used in the xdist group "survival_loads"."""
    with MultiModelServer(models, tmp_path_factory.mktemp("cache"), "--gateways", "2") as server:
        yield server


@pytest.fixture
def neighbour(endpoint: MultiModelServer) -> Iterator[Bystander]:
    """What `bystander` is, at the multi-model endpoint."""
    with Bystander(endpoint) as asking:
        asking.wait_for_answers()
        yield asking
        asking.wait_for_answers()
    asking.assert_unharmed()
