"""`python -m benchmarks.report`: the figures of the last run as docs/performance.md and docs/performance.svg.

What earlier runs gave stands beside them with `--earlier`: on a machine that changes its speed, one run alone says too much.

Computes nothing that is not in the JSON file but medians and ratios. The profiles that `python -m benchmarks.profile` made,
benchmarks/profile.md and benchmarks/profile_grpc.md, are put into their marked place as they are. The sections on optimized
models and tuned settings come from the results of `python -m benchmarks.optimize` and `python -m benchmarks.tuning`, that on all
peers, with docs/peers.svg, from those of `python -m benchmarks.side_by_side`. What was not measured on this machine stays as the
page has it.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    load,
    models,
    optimize_report,
    optimize_results,
    side_by_side_report,
    tuning_report,
    tuning_results,
    works,
)
from benchmarks.chart import Bar, Panel, svg
from benchmarks.environments import requirements
from benchmarks.machine import ROOT
from benchmarks.results import Results, Summary, read
from benchmarks.servers import GRPC_CONTENDERS, PEER_CONTENDERS, PENSTOCK, Contender

PROFILES = (Path(__file__).with_name("profile.md"), Path(__file__).with_name("profile_grpc.md"))
#: What `python -m benchmarks.roofline` made.
ROOFLINE = Path(__file__).with_name("roofline.md")
#: What `python -m benchmarks.xla` made.
XLA = Path(__file__).with_name("xla.md")
#: What `python -m benchmarks.run` measured.
LATEST = Path(__file__).with_name("results") / "latest.json"
#: What `python -m benchmarks.optimize` measured.
OPTIMIZED = Path(__file__).with_name("results") / "optimize.json"
#: What `python -m benchmarks.tuning` measured.
TUNED = Path(__file__).with_name("results") / "tuning.json"
#: What `python -m benchmarks.side_by_side` measured.
PEERS = Path(__file__).with_name("results") / "peers.json"
PEERS_HEADING, OPTIMIZED_HEADING, TUNED_HEADING = OTHERS = ("## All peers", "## Optimized models", "## Tuned settings")
_BEFORE = "## How it was measured"
CONTENDERS = (PENSTOCK, *PEER_CONTENDERS, *GRPC_CONTENDERS)
OUR_PARTS = ("penstock", "tensorflow", "tensorflow-cpu", "numpy", "uvloop", "httptools", "pysimdjson", "orjson")
NONE = "–"


def page(results: Results, profile: str | None, earlier: Sequence[Results] = ()) -> str:
    """The whole of performance.md without its sections on peers, optimized models and tuned settings.

    earlier: runs before this one, the oldest first, whose figures stand beside its own.
    """
    figures = list(figure_blocks(results))
    blocks = [
        "<!-- Made by `python -m benchmarks.report`: do not edit. -->",
        "# Performance",
        introduction(results, earlier),
        "![Throughput of each server at each work](performance.svg)",
        "## What it must reach",
        requirements_table(results, earlier),
        "## Side by side",
        "In brackets: how many times better Penstock is (more requests, less time). Medians of the rounds. Spread: "
        "from the slowest to the quickest round, as a share of the median. CPU: of all the server's processes, per "
        "request.",
        *load_blocks(results),
        "## Start, tensors, memory",
        *other_blocks(results),
        "## Many models, scripts, instances, gRPC" if figures else "",
        *figures,
        _BEFORE,
        method(results),
        contender_table(results),
        "## Repeat it",
        repetition(results),
        "## Where the time goes",
        "<!-- benchmarks/profile.md and benchmarks/profile_grpc.md are put in here as they are -->",
    ]
    if profile is not None:
        blocks.append(profile.strip())
    return joined(blocks).rstrip("\n") + "\n"


def joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n\n"


def introduction(results: Results, earlier: Sequence[Results] = ()) -> str:
    machine = results.machine
    bars = works.bars(results)
    met, measured = sum(bar.met is True for bar in bars), sum(bar.met is not None for bar in bars)
    runs = ", then ".join(f"{each.date[:16].replace('T', ' ')} at `{each.commit}`" for each in earlier)
    before = f" What runs before it gave stands beside each figure: {runs}." if earlier else ""
    return (
        f"Measured on {results.date[:10]} at commit `{results.commit}`: {machine['processor']}, {machine['cores']} "
        f"cores, {machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}; the load generator ran "
        f"on the same machine, whose load average was {machine['load_average_before']} before the run. {met} of the "
        f"{measured} requirements that were measured are met. Machines differ: trust the ratios, and repeat what you "
        f"rely on.{before}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def requirements_table(results: Results, earlier: Sequence[Results] = ()) -> str:
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    before = [{(bar.work, bar.what): bar.measured for bar in works.bars(each)} for each in earlier]
    rows = [
        [
            bar.work,
            bar.what,
            bar.required,
            bar.measured,
            verdicts[bar.met],
            *(run.get((bar.work, bar.what), NONE) for run in before),
        ]
        for bar in works.bars(results)
    ]
    return table(["work", "figure", "at least / at most", "measured", "met", *("before" for _ in before)], rows)


def times(better: float | None, worse: float | None) -> str:
    """Penstock's advantage in brackets; nothing where one of the two figures is missing."""
    if not better or not worse:
        return ""
    ratio = better / worse
    return f" ({ratio:,.0f}×)" if ratio >= 100 else f" ({ratio:.2f}×)"


def per_second(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def load_blocks(results: Results) -> Iterator[str]:
    head = ["server", "requests/s", "p50, ms", "p99, ms", "CPU, µs", "spread", "errors"]
    for each in (*works.LOADS, *works.GRPC_LOADS):
        if each.name in results.samples or each.name in results.failures:
            yield f"### {each.title}"
            rows = [load_row(results, each.name, contender) for contender in present(results, each)]
            yield table(head, [*rows, *rows_beside(results, each.name)])


def rows_beside(results: Results, work: str) -> Iterator[list[str]]:
    """Our own figures of works that a reader compares with this one."""
    for name in works.BESIDE.get(work, ()):
        if works.summary(results, name, "penstock"):
            (title,) = [each.title for each in works.LOADS if each.name == name]
            yield [f"for comparison, Penstock: {title}", *load_row(results, name, PENSTOCK)[1:]]


def present(results: Results, work: works.Load) -> list[Contender]:
    """Who took part in a work, successfully or not; the best peer first."""
    taking_part = [
        each
        for each in CONTENDERS
        if each.name in results.samples.get(work.name, {}) or each.name in results.failures.get(work.name, {})
    ]
    return sorted(taking_part, key=lambda each: (each is not PENSTOCK, -rate(results, work, each)))


def rate(results: Results, work: works.Load, contender: Contender) -> float:
    found = works.summary(results, work.name, contender.name)
    return found.rate if found else 0.0


def load_row(results: Results, work: str, contender: Contender) -> list[str]:
    found = works.summary(results, work, contender.name)
    failure = results.failures.get(work, {}).get(contender.name)
    if found is None:
        return [contender.title, f"failed: {failure}", *[NONE] * 5]
    ours = works.summary(results, work, "penstock") if contender is not PENSTOCK else None
    cells = [
        f"{per_second(found.rate)}{times(ours.rate if ours else None, found.rate)}",
        f"{found.p50_ms:.2f}{times(found.p50_ms, ours.p50_ms if ours else None)}",
        f"{found.p99_ms:.2f}{times(found.p99_ms, ours.p99_ms if ours else None)}",
        cpu_cell(found, ours),
        f"{found.spread:.0%}",
        f"{found.errors}" + (f"; then failed: {failure}" if failure else ""),
    ]
    return [contender.title, *cells]


def cpu_cell(found: Summary, ours: Summary | None) -> str:
    if found.cpu_us is None:
        return NONE
    return f"{found.cpu_us:,.0f}{times(found.cpu_us, ours.cpu_us if ours else None)}"


def other_blocks(results: Results) -> Iterator[str]:
    ours = statistics.median(results.start_s["penstock"]) if "penstock" in results.start_s else None
    starts = [
        [each.title, f"{seconds:.2f}{times(seconds, ours) if each is not PENSTOCK else ''}"]
        for each in CONTENDERS
        if each.name in results.start_s
        for seconds in [statistics.median(results.start_s[each.name])]
    ]
    if starts:
        yield table(["from the command to the first 200, half_plus_two", "s"], starts)
    if results.tensor_ms:
        yield table(["a 600 KB tensor there and back", "ms"], tensor_rows(results))
    if results.unique_mb:
        rows = [[kind, ", ".join(f"{size:.1f}" for size in sizes)] for kind, sizes in results.unique_mb.items()]
        yield table(["unique memory (USS) after serving half_plus_two twice, two gateways", "MB of each"], rows)
    for work in works.OTHERS:
        if work not in works.FIGURES:
            yield from failures(results, work)


def figure_blocks(results: Results) -> Iterator[str]:
    """A table per work: each figure's median over the rounds, and from where to where it went."""
    for work, names in works.FIGURES.items():
        found = results.figures.get(work, {})
        rows = [[text, *median_and_range(found[name])] for name, text in names.items() if name in found]
        ratios = {text: works.quotient(results, work, pair) for text, pair in works.RATIOS.get(work, {}).items()}
        rows += [[text, f"{ratio:.3f}×", NONE] for text, ratio in ratios.items() if ratio is not None]
        if rows:
            yield f"### {works.OTHERS[work]}"
            yield works.NOTES[work]
            yield table(["figure", "median", "lowest to highest"], rows)
        yield from failures(results, work)


def median_and_range(values: Sequence[float]) -> list[str]:
    low, high = min(values), max(values)
    return [digits(statistics.median(values)), f"{digits(low)} to {digits(high)}" if len(values) > 1 else NONE]


def digits(value: float) -> str:
    """Three significant digits, and all that stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def failures(results: Results, work: str) -> Iterator[str]:
    for name, reason in results.failures.get(work, {}).items():
        yield f"{works.OTHERS[work]}: {name} failed: {reason}"


def tensor_rows(results: Results) -> list[list[str]]:
    """The parts, and what is left when the known ones are taken off."""
    names = {
        "served": "`application/x-npy` to `/invocations` and back, through a kept connection of a plain socket",
        "hosted": "of that, from the gateway to the host and back",
        "engine": "the same array through `penstock.load(path)(x=…)` in one process",
        "echo": "as many bytes through a plain loopback socket to another process and back",
    }
    medians = {part: statistics.median(figures) for part, figures in results.tensor_ms.items()}
    rows = [[names[part], f"{value:.3f}"] for part, value in medians.items()]
    hosted, over = (works.tensor_overhead_ms(results, part) for part in ("hosted", "served"))
    if hosted is not None:
        rows.append(["to the host and back, over the engine call alone", f"{hosted:.3f}"])
    if over is not None:
        rows.append(["from the client and back, over the engine call alone", f"{over:.3f}"])
    if over is not None and "echo" in medians:
        rows.append(["of that, beyond moving the bytes", f"{over - medians['echo']:.3f}"])
    return rows


def method(results: Results) -> str:
    settings = results.settings
    return (
        f"{', '.join(results.versions['system'].values())}, one thread, the same body, connections and seconds for all: "
        f"{settings['seconds']} s after {settings['warm_up_s']} s of warming up; rounds: {settings['rounds']}, the "
        "servers in turn (A B C A B C …), one alive at a time, started anew for each round. Before and after, "
        "each server's answer is compared with TensorFlow's own: 10⁻⁴ of the largest number is allowed, and 3·10⁻⁴ where a "
        "script rounds to four digits. An error is an "
        "answer above 399, a call without a message in its answer, or a broken connection. Each peer is written as its own "
        "documentation recommends, in "
        "`benchmarks/peers/`."
    )


def contender_table(results: Results) -> str:
    rows = []
    for each in CONTENDERS:
        reason = results.missing.get(each.name)
        installed = results.versions.get(each.name, {})
        if each is PENSTOCK:
            wanted: Iterable[str] = OUR_PARTS
        else:
            lines = requirements(each.home).read_text().splitlines()
            wanted = dict.fromkeys([line.split("==")[0].split("[")[0] for line in lines] + ["numpy"])
        parts = ", ".join(f"{name} {installed[name]}" for name in wanted if name in installed)
        rows.append([each.title, each.configuration, parts or reason or "not in this run"])
    return table(["server", "configuration", "versions"], rows)


def repetition(results: Results) -> str:
    """Commands for the whole run, for a part of it, and for a single figure by hand."""
    body = models.body_path(Path("benchmarks/results/models"), "perceptron")
    url = "http://127.0.0.1:8080/v1/models/perceptron:predict"
    by_hand = " ".join(load.wrk_command(url, body, 64, results.settings["seconds"])).replace(f"{ROOT}/", "")
    commands = [
        "make bench",
        "python -m benchmarks.run --only perceptron-64 --peers mosec,fastapi --rounds 5",
        "python -m benchmarks.run --only hosted-500 --only instances --only neighbour --peers none",
        "python -m benchmarks.run --only grpc-predict --only image --peers grpcio_aio,pytriton",
        "python -m benchmarks.report",
        "",
        "# one figure by hand",
        "penstock serve benchmarks/results/models/perceptron &",
        by_hand,
    ]
    return "```sh\n" + "\n".join(commands) + "\n```"


def chart(results: Results) -> str:
    """A panel per work: requests per second, and at one connection the median latency."""
    panels = []
    for work in (*works.LOADS, *works.GRPC_LOADS):
        bars = [_chart_bar(results, work, each) for each in present(results, work) if rate(results, work, each)]
        unit = "p50 latency, ms: short is good" if work.connections == 1 else "requests per second: long is good"
        if bars:
            panels.append(Panel(work.title, f"{unit}; in brackets: how many times better Penstock is", bars))
    return svg("Penstock and its peers, side by side", panels)


def _chart_bar(results: Results, work: works.Load, contender: Contender) -> Bar:
    found = works.summary(results, work.name, contender.name)
    assert found is not None
    ours = works.summary(results, work.name, "penstock") if contender is not PENSTOCK else None
    if work.connections == 1:
        ratio = times(found.p50_ms, ours.p50_ms if ours else None)
        return Bar(contender.title, found.p50_ms, f"{found.p50_ms:.2f} ms{ratio}", contender is PENSTOCK)
    ratio = times(ours.rate if ours else None, found.rate)
    return Bar(contender.title, found.rate, f"{per_second(found.rate)}{ratio}", contender is PENSTOCK)


def sections(text: str) -> dict[str, str]:
    """The sections of a page by their headings, each from its heading on; what stands before the first is under an empty one."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return {part.partition("\n")[0] if place else "": part for place, part in enumerate(parts)}


def with_sections(text: str, own: Mapping[str, str]) -> str:
    """The page with these sections, by heading, in the place of its own, or before that on how it was measured."""
    found = sections(text)
    for heading, section in own.items():
        if heading not in found:
            place = list(found).index(_BEFORE)
            found = dict([*list(found.items())[:place], (heading, ""), *list(found.items())[place:]])
        found[heading] = section
    return "".join(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Figures to docs/performance.md.")
    parser.add_argument("results", type=Path, nargs="?", default=LATEST, metavar="RESULTS.json", help="default: %(default)s")
    parser.add_argument(
        "--earlier",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="of runs before it, to stand beside; the oldest first",
    )
    parser.add_argument("--optimize", type=Path, default=OPTIMIZED, metavar="FILE", help="where there is one: %(default)s")
    parser.add_argument("--tuning", type=Path, default=TUNED, metavar="FILE", help="where there is one: %(default)s")
    parser.add_argument("--peers", type=Path, default=PEERS, metavar="FILE", help="where there is one: %(default)s")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR", help="where to write (default: docs)")
    options = parser.parse_args()
    options.docs.mkdir(parents=True, exist_ok=True)
    written = options.docs / "performance.md"
    present = written.read_text() if written.exists() else ""
    profile = "\n\n".join(file.read_text().strip() for file in PROFILES if file.exists()) or None
    own = {heading: section for heading, section in sections(present).items() if heading in OTHERS}
    if options.results.exists():
        results = read(options.results)
        present = page(results, profile, [read(file) for file in options.earlier])
        (options.docs / "performance.svg").write_text(chart(results))
    elif not present:
        parser.error(f"{options.results} is not there, nor is {written}")
    if options.peers.exists():
        peers = read(options.peers)
        own[PEERS_HEADING] = joined(side_by_side_report.section(peers))
        (options.docs / "peers.svg").write_text(side_by_side_report.chart(peers))
    if options.optimize.exists():
        beside = [page.read_text().strip() for page in (ROOFLINE, XLA) if page.exists()]
        own[OPTIMIZED_HEADING] = joined(optimize_report.section(optimize_results.read(options.optimize), beside))
    if options.tuning.exists():
        own[TUNED_HEADING] = joined(tuning_report.section(tuning_results.read(options.tuning)))
    written.write_text(with_sections(present, {heading: own[heading] for heading in OTHERS if heading in own}))
    print(written)


if __name__ == "__main__":
    main()
