"""What `benchmarks.side_by_side` measures: its works, by which `Results` keeps their samples and failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.formats import FORMATS, Format
from benchmarks.results import Results, Summary, summarize
from benchmarks.side_by_side_servers import PENSTOCK, SERVERS, Peer

TITLES = {
    "perceptron": "Perceptron 100-256-256-10, one row",
    "mobilenet": "MobileNetV2, one 224×224×3 image",
    "multitask": "A web page through Python code to three answers",
}
CONNECTIONS = {"perceptron": (1, 16, 64), "mobilenet": (4,), "multitask": (1, 8)}
#: The formats of the web pages' network; all others are for arrays.
_OF_PAGES = ("page", "oip_page")


@dataclass(frozen=True)
class Work:
    """A model in a format, so many requests at a time, each on a connection of its own."""

    model: str
    format: Format
    connections: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.format.name}-{self.connections}"


WORKS = tuple(
    Work(model, each, connections)
    for model, counts in CONNECTIONS.items()
    for each in FORMATS
    if (each.name in _OF_PAGES) == (model == "multitask")
    for connections in counts
)


@dataclass(frozen=True)
class Table:
    """What is compared: a model, a kind of format, and a number of connections."""

    model: str
    kind: str
    connections: int

    @property
    def works(self) -> list[Work]:
        return [
            each
            for each in WORKS
            if (each.model, each.format.kind, each.connections) == (self.model, self.kind, self.connections)
        ]


TABLES = tuple(dict.fromkeys(Table(each.model, each.format.kind, each.connections) for each in WORKS))


@dataclass(frozen=True)
class Row:
    """A server at a work: what was found, or why there is nothing; ours: what we have to compare it with, in the same format
    where we have that, else in the first of the table."""

    peer: Peer
    work: Work
    found: Summary | None
    failure: str | None
    ours: Summary | None

    @property
    def rate(self) -> float:
        return self.found.rate if self.found else 0.0


def rows(results: Results, table: Table) -> list[Row]:
    """Ours first, then the quickest; the failed ones last."""
    found = [row for work in table.works for peer in SERVERS if (row := _row(results, table, work, peer))]
    return sorted(found, key=lambda row: (row.peer is not PENSTOCK, -row.rate))


def _row(results: Results, table: Table, work: Work, peer: Peer) -> Row | None:
    mine, failure = summary(results, work, peer), results.failures.get(work.name, {}).get(peer.name)
    if mine is None and failure is None:
        return None
    ours = None if peer is PENSTOCK else _ours(results, table, work)
    return Row(peer, work, mine, failure, ours)


def _ours(results: Results, table: Table, work: Work) -> Summary | None:
    found = (summary(results, each, PENSTOCK) for each in (work, *table.works))
    return next((each for each in found if each and not each.errors), None)


def summary(results: Results, work: Work, peer: Peer) -> Summary | None:
    rounds = results.samples.get(work.name, {}).get(peer.name)
    return summarize(rounds) if rounds else None


def absent(results: Results, table: Table) -> Iterator[tuple[Peer, str]]:
    """Who has no row in a table, and why."""
    there = {row.peer.name for row in rows(results, table)}
    for peer in SERVERS:
        reason = results.missing.get(peer.name) or peer.silent.get(table.kind)
        if not reason and any(each.format.name in peer.speaks for each in table.works):
            reason = "not reached in this run"
        if peer.name not in there and reason:
            yield peer, reason


def unmeasured(results: Results) -> list[str]:
    """The titles of the models of which the run has nothing."""
    there = {work.model for work in WORKS if results.samples.get(work.name)}
    return [title for model, title in TITLES.items() if model not in there]
