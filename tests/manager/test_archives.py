"""What is known of archives: each content of a model once, and nothing of what nobody wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.models.archives import Archives
from penstock.models.desired import Desired

ARCHIVE = Path("/store/a.tar.gz")
VERSIONS = {1: Path("/cache/x/1")}
ROOT = Path("/cache/x")


def desired(fingerprint: str = "1", archive: Path = ARCHIVE) -> Desired:
    return Desired("a", {}, on_demand=True, archive=archive, fingerprint=fingerprint)


@pytest.fixture
def archives() -> Archives:
    """One archive of model a is unpacked."""
    archives = Archives()
    assert archives.begin(desired(), ARCHIVE)
    archives.end("a", ARCHIVE, VERSIONS, ROOT)
    return archives


def test_an_archive_is_unpacked_once_at_a_time() -> None:
    archives = Archives()
    assert archives.begin(desired(), ARCHIVE)
    assert archives.is_under_way("a")
    assert not archives.begin(desired("2"), ARCHIVE)
    assert archives.versions(desired()) == {}
    archives.end("a", ARCHIVE, VERSIONS, ROOT)
    assert not archives.is_under_way("a")
    assert archives.begin(desired("2"), ARCHIVE)


def test_what_was_in_an_archive_holds_for_that_content_only(archives: Archives) -> None:
    assert (archives.versions(desired()), archives.root("a")) == (VERSIONS, ROOT)
    assert archives.versions(desired("2")) == {}
    assert archives.versions(desired(archive=Path("/store/b.tar.gz"))) == {}


def test_what_is_given_out_may_be_changed(archives: Archives) -> None:
    archives.versions(desired()).clear()
    assert archives.versions(desired()) == VERSIONS


def test_nothing_is_known_of_what_failed_or_was_forgotten(archives: Archives) -> None:
    archives.forget("a")
    assert (archives.versions(desired()), archives.root("a")) == ({}, None)
    assert archives.begin(desired(), ARCHIVE)
    archives.fail("a")
    assert (archives.versions(desired()), archives.root("a"), archives.is_under_way("a")) == ({}, None, False)


def test_what_was_forgotten_meanwhile_stays_so() -> None:
    archives = Archives()
    archives.begin(desired(), ARCHIVE)
    archives.forget("a")
    archives.end("a", ARCHIVE, VERSIONS, ROOT)
    assert archives.versions(desired()) == {}


def test_another_archive_than_the_one_that_was_asked_for_does_not_count() -> None:
    archives = Archives()
    archives.begin(desired(), ARCHIVE)
    archives.end("a", Path("/store/old.tar.gz"), VERSIONS, ROOT)
    assert archives.versions(desired()) == {}
