"""`make bench`: measures Penstock and its peers side by side on this machine, one server alive at a time.

`python -m benchmarks.run` from the repository's root: exports the models, sets up the peers' environments, measures,
prints the table of requirements, and writes all figures to a JSON file, from which `python -m benchmarks.report` makes
the page. Exit code 1: the server under test failed at a work or returned an error. A requirement that is not met shows
in the table alone.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import (
    agreement,
    calls,
    cold,
    environments,
    grpc_latency,
    grpc_neighbours,
    grpc_predict,
    hosted,
    image,
    instances,
    jpeg,
    large,
    load,
    machine,
    memory,
    models,
    neighbour,
    start,
    tensor,
    throughput,
    works,
)
from benchmarks.results import Results, summarize
from benchmarks.servers import (
    GRPC_CONTENDERS,
    PEER_CONTENDERS,
    PENSTOCK,
    Contender,
    Launch,
    launch_grpc_peer,
    launch_peer,
    launch_penstock,
)

RESULTS = Path(__file__).with_name("results")
SMOKE_PEERS = "fastapi"
TENSOR_CALLS = 300
SMOKE_TENSOR_CALLS = 50
JPEG_CALLS = 200
SMOKE_JPEG_CALLS = 30
SMOKE_LATENCY_CALLS = 200
ALL_PEERS = (*PEER_CONTENDERS, *GRPC_CONTENDERS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Penstock and its peers, side by side.")
    parser.add_argument("--only", action="append", choices=works.NAMES, metavar="WORK", help=", ".join(works.NAMES))
    parser.add_argument("--peers", help="comma-separated, or 'none'; default: all", metavar="NAMES")
    parser.add_argument("--rounds", type=int, help="of each measurement, the contenders in turn (default 3)")
    parser.add_argument("--seconds", type=int, help="of each measurement (default 10)")
    parser.add_argument("--warm-up", type=int, help="seconds of load before each measurement (default 2)")
    parser.add_argument("--smoke", action="store_true", help="one short round of a few works against one peer, for CI")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=RESULTS / "models", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--server", default=str(Path(sys.executable).with_name("penstock")), metavar="COMMAND")
    options = parser.parse_args()
    short = options.smoke
    options.only = options.only or (works.SMOKE if short else works.NAMES)
    options.peers = (SMOKE_PEERS if short else None) if options.peers is None else options.peers
    options.rounds = options.rounds or (1 if short else 3)
    options.seconds = options.seconds or (1 if short else 10)
    options.warm_up = options.warm_up or (1 if short else 2)
    return options


def chosen_peers(names: str | None, only: Iterable[str]) -> list[Contender]:
    """The peers named in the option, in their usual order, as far as the works have a use for them."""
    all_names = [peer.name for peer in ALL_PEERS]
    wanted = set(all_names) if names is None else set() if names == "none" else set(names.split(","))
    if unknown := wanted.difference(all_names):
        raise SystemExit(f"unknown peer {', '.join(unknown)}: choose from {', '.join(all_names)}")
    useful = [*PEER_CONTENDERS] if set(only).difference(works.OF_GRPC) else []
    useful += GRPC_CONTENDERS if set(only).intersection(works.OF_GRPC) else ()
    return [peer for peer in useful if peer.name in wanted]


def measure(options: argparse.Namespace) -> Results:
    """Runs what was asked for; what was measured is written even when the run is interrupted."""
    tools = {"wrk": load.require_wrk()}
    if set(options.only).intersection(works.OF_GRPC):
        tools["h2load"] = calls.require_h2load()
    before = machine.describe()
    subprocess.run([sys.executable, str(Path(models.__file__)), str(options.models)], check=True)
    peers = chosen_peers(options.peers, options.only)
    found, missing = environments.prepare(peer.home for peer in peers)
    pythons = {peer.name: found[peer.home] for peer in peers if peer.home in found}
    server = shlex.split(options.server)
    plan = throughput.Plan(options.models, options.rounds, options.seconds, options.warm_up)
    reasons: dict[str, str] = {peer.name: missing[peer.home] for peer in peers if peer.home in missing}
    results = Results.begun(plan.settings, before, tools, pythons, reasons)
    able = [peer for peer in peers if peer.name in pythons]
    of_grpc = {peer.name: peer for peer in GRPC_CONTENDERS if peer in able}

    def launch(contender: Contender, model: str) -> Launch:
        if contender.name == "penstock":
            return launch_penstock(server, options.models, model)
        if contender in GRPC_CONTENDERS:
            return launch_grpc_peer(contender.name, pythons[contender.name], options.models, model)
        return launch_peer(contender.name, pythons[contender.name], options.models, model)

    try:
        loads = [each for each in works.LOADS if each.name in options.only]
        throughput.measure(loads, [PENSTOCK, *able], launch, plan, results)
        if "start" in options.only:
            start.measure([PENSTOCK, *(peer for peer in able if peer.name == "fastapi")], launch, plan, results)
        if "tensor" in options.only:
            tensor.measure(server, SMOKE_TENSOR_CALLS if options.smoke else TENSOR_CALLS, plan, results)
        if "memory" in options.only:
            workers = [peer for peer in able if peer.name == "fastapi"]
            memory.measure(server, workers, launch, plan, results)
        if hosted.WORK in options.only:
            hosted.measure(server, hosted.SMOKE_MODELS if options.smoke else hosted.MODELS, plan, results)
        if cold.WORK in options.only:
            cold.measure(server, [peer for peer in able if peer.name == "flask_keras"], launch, plan, results)
        if instances.WORK in options.only:
            instances.measure(server, plan, results)
        if neighbour.WORK in options.only:
            neighbour.measure(server, plan, results)
        if jpeg.WORK in options.only:
            jpeg.measure(launch, SMOKE_JPEG_CALLS if options.smoke else JPEG_CALLS, plan, results)
        if grpc_predict.WORK in options.only:
            servers = [peer for name, peer in of_grpc.items() if name != "pytriton"]
            grpc_predict.measure(servers, launch, plan, results)
        if grpc_latency.WORK in options.only:
            count = SMOKE_LATENCY_CALLS if options.smoke else grpc_latency.CALLS
            grpc_latency.measure(of_grpc.get("grpcio_aio"), launch, count, plan, results)
        if image.WORK in options.only:
            for name in results.missing.keys() & {"pytriton"}:
                results.fail(image.WORK, name, results.missing[name])
            image.measure(of_grpc.get("pytriton"), launch, plan, results)
        if large.WORK in options.only:
            large.measure(server, plan, results)
        if agreement.WORK in options.only:
            agreement.measure(server, launch, plan, results)
        if grpc_neighbours.WORK in options.only:
            grpc_neighbours.measure(server, plan, results)
    finally:
        results.write(options.json)
    return results


def failed(results: Results) -> bool:
    """Whether the server under test could not do a work, or answered any request with an error."""
    ours = [contenders.get("penstock") for contenders in results.samples.values()]
    answered_errors = any(summarize(rounds).errors for rounds in ours if rounds)
    return answered_errors or any("penstock" in contenders for contenders in results.failures.values())


def main() -> None:
    options = arguments()
    # Ended by a timeout or a supervisor, the runner still ends the server that it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        results = measure(options)
    except load.NoLoadGeneratorError as error:
        raise SystemExit(str(error)) from error
    print()
    for bar in works.bars(results):
        verdict = {True: "met", False: "NOT MET", None: "-"}[bar.met]
        print(f"{verdict:8} {bar.work}: {bar.what} {bar.required}: {bar.measured}")
    print(f"\n{options.json}\nmake the page with: python -m benchmarks.report {options.json}")
    raise SystemExit(1 if failed(results) else 0)


if __name__ == "__main__":
    main()
