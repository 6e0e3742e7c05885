"""`make bench-peers`: Penstock and every peer on three models, in each format that they speak, one server alive at a time.

`python -m benchmarks.side_by_side` from the repository's root: exports the models, sets up an environment for each peer, starts
each server once for each model and format of a round, checks its answer against TensorFlow's, measures, and writes all figures to
a JSON file, of which `python -m benchmarks.report` makes a section of the page. The order turns from round to round. A peer that
cannot be installed, started or measured has a reason instead of figures. Exit code 1: our own server failed at something.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import calls, environments, grpc_predict, load, machine, models, throughput
from benchmarks.formats import Question, question
from benchmarks.results import Results
from benchmarks.run import failed
from benchmarks.servers import Launch, Running, ServerFailedError, running
from benchmarks.side_by_side_results import CONNECTIONS, WORKS, Work
from benchmarks.side_by_side_servers import PENSTOCK, SERVERS, Peer, launch, launch_ours, unable

RESULTS = Path(__file__).with_name("results")
NAMES = tuple(peer.name for peer in SERVERS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description="Penstock and all its peers.")
    parser.add_argument(
        "--only", action="append", metavar="PEER", help=f"comma-separated; beside Penstock: {', '.join(NAMES[1:])}"
    )
    parser.add_argument("--model", action="append", choices=tuple(CONNECTIONS), metavar="MODEL", help=", ".join(CONNECTIONS))
    parser.add_argument("--rounds", type=int, help="of each measurement, the servers in turn (default 3)")
    parser.add_argument("--seconds", type=int, help="of each measurement (default 5)")
    parser.add_argument("--warm-up", type=int, help="seconds of load before each measurement (default 2)")
    parser.add_argument("--smoke", action="store_true", help="one round of three seconds each")
    parser.add_argument("--json", type=Path, default=RESULTS / "peers.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=RESULTS / "models", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--server", default=str(Path(sys.executable).with_name("penstock")), metavar="COMMAND")
    options = parser.parse_args()
    short = options.smoke
    named = {name for names in options.only or () for name in names.split(",")}
    if unknown := named.difference(NAMES):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    options.only = [peer for peer in SERVERS if peer is PENSTOCK or not named or peer.name in named]
    options.works = [each for each in WORKS if each.model in (options.model or CONNECTIONS)]
    options.rounds = options.rounds or (1 if short else 3)
    options.seconds = options.seconds or (3 if short else 5)
    options.warm_up = options.warm_up or (1 if short else 2)
    return options


def measure(options: argparse.Namespace) -> Results:
    """Runs what was asked for; what was measured is written after each round, and when the run is interrupted."""
    tools = {"wrk": load.require_wrk(), "h2load": calls.require_h2load()}
    before = machine.describe()
    subprocess.run([sys.executable, str(Path(models.__file__)), str(options.models)], check=True)
    peers: list[Peer] = [peer for peer in options.only if peer is not PENSTOCK]
    found, missing = environments.prepare([peer.contender.home for peer in peers], apart=True)
    pythons = {peer.name: found[peer.contender.home] for peer in peers if peer.contender.home in found}
    reasons: dict[str, str] = {peer.name: missing[peer.contender.home] for peer in peers if peer.contender.home in missing}
    reasons |= {name: reason for name, python in pythons.items() if (reason := unable(name, python))}
    plan = throughput.Plan(options.models, options.rounds, options.seconds, options.warm_up)
    results = Results.begun(plan.settings, before, tools, pythons, reasons)
    able = [peer for peer in options.only if peer.name not in reasons]
    command = shlex.split(options.server)

    def start(peer: Peer, asked: Question) -> Launch:
        if peer is PENSTOCK:
            return launch_ours(command, options.models, asked)
        return launch(peer, pythons[peer.name], options.models, asked)

    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(plan.rounds):
                for peer in able if number % 2 == 0 else reversed(able):
                    for works in lives(peer, options.works):
                        asked = question(works[0].format.name, options.models, works[0].model)
                        print(f"round {number + 1} of {plan.rounds}: {peer.contender.title}, {works[0].name}", flush=True)
                        visit(works, peer, start(peer, asked), asked, Path(folder), plan, results)
                results.write(options.json)
        finally:
            results.write(options.json)
    return results


def lives(peer: Peer, works: Sequence[Work]) -> list[list[Work]]:
    """The works that one life of a server is for: a model in a format."""
    spoken = [each for each in works if each.format.name in peer.speaks and each.model in peer.contender.models]
    pairs = dict.fromkeys((each.model, each.format) for each in spoken)
    return [[each for each in spoken if (each.model, each.format) == pair] for pair in pairs]


def visit(
    works: Sequence[Work], peer: Peer, start: Launch, asked: Question, folder: Path, plan: throughput.Plan, results: Results
) -> None:
    """One life of one server: each work once; one that fails is not measured again."""
    left = [each for each in works if peer.name not in results.failures.get(each.name, {})]
    if not left:
        return
    body = asked.write(folder)
    try:
        with running(start) as server:
            if asked.call is not None:
                calls.wait_for_answer(server, asked.call)
            else:
                server.wait_for_answer(asked.body)
            while left:
                sample = under_load(server, left[0], asked, body, plan)
                results.samples.setdefault(left[0].name, {}).setdefault(peer.name, []).append(sample)
                print(f"  {left.pop(0).name}: {throughput.describe(sample)}", flush=True)
    except (ServerFailedError, RuntimeError) as error:
        for each in left:
            results.fail(each.name, peer.name, str(error))


def under_load(server: Running, work: Work, asked: Question, body: Path, plan: throughput.Plan) -> load.Sample:
    """Answers that are right, a warm-up, the measurement, and answers that are right still. Raises ServerFailedError."""
    if asked.call is not None:
        return grpc_predict.visit(server, asked.call, body, asked.expected, plan, connections=work.connections, streams=1)
    start = server.launch
    asked.check(server)
    load.drive(start.url, body, work.connections, plan.warm_up_s, start.content_type, field=start.field)
    sample = throughput.under_load(server, body, work.connections, plan.seconds)
    asked.check(server)
    return sample


def main() -> None:
    options = arguments()
    # Ended by a timeout or a supervisor, the runner still ends the server that it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        results = measure(options)
    except load.NoLoadGeneratorError as error:
        raise SystemExit(str(error)) from error
    for name, reason in results.missing.items():
        print(f"skipped: {name}: {reason}")
    print(f"\n{options.json}")
    raise SystemExit(1 if failed(results) else 0)


if __name__ == "__main__":
    main()
