"""What tuning found, for people: a page with charts that can be sent to others, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.report.charts import Bar, Cell, Curve, bars, cells, curves
from penstock.report.figures import bytes_text, seconds_text, share_text, three_digits
from penstock.report.page import html, markdown
from penstock.report.parts import Part, Table
from penstock.tune.curve import Step
from penstock.tune.files import CONFIG
from penstock.tune.objective import OBJECTIVES, per_million
from penstock.tune.result import Figures, TuneResult
from penstock.tune.setting import AUTO, NAMES, Setting

#: Curves of a chart: the defaults, the winner, and others of the search.
_OTHERS = 4
_ROWS = 40
#: Advice: of what is sustained, so much leaves room for a busy minute and for an instance that is being restarted.
_ADVISED = 0.7


def write_report(folder: Path, result: TuneResult) -> None:
    """report.html and report.md. Raises OSError."""
    title = f"{result.model}, tuned"
    lead, found = summary(result), parts(result)
    (folder / "report.md").write_text(markdown(title, lead, found), "utf-8")
    (folder / "report.html").write_text(html(title, lead, found, lambda: charts(result), "penstock tune"), "utf-8")


def summary(result: TuneResult) -> str:
    """The sentence that matters first."""
    rate = f"{_rate(result.best.rate)} requests/s"
    if result.is_default:
        return f"The defaults are as good as anything that was tried: {rate}."
    what = {"throughput": "the throughput", "latency": "the speed", "cost": "the answers per CPU second"}[result.objective]
    if result.gain is None:
        return f"{rate} with {chosen_text(result)}; {result.gain_text}."
    return f"{rate} with {chosen_text(result)}: {result.gain:.2f} times {what} of the defaults."


def chosen_text(result: TuneResult) -> str:
    """What the winner has that is not the default."""
    return setting_text(result.winner, result.defaults)


def setting_text(setting: Setting, defaults: Setting) -> str:
    """What a setting has that is not the default."""
    chosen = {name: value for name, value in setting.differences(defaults).items() if value != getattr(AUTO, name)}
    return " ".join(f"{name}={value}" for name, value in chosen.items()) or "the defaults"


def headroom(result: TuneResult) -> list[str]:
    """How much load to plan with; nothing where it was not tried."""
    if not result.offered:
        return []
    most, limit = result.sustained, result.offered[-1].limit
    if most is None:
        return [f"requests that come by themselves: {limit or 'the goal was held at no rate that was tried'}"]
    goal = f"with {result.slo}" if result.slo else "before latency explodes"
    at_most = "at least " if limit or most is result.offered[-1] else ""
    told = [f"more requests that come by themselves could not be tried: {limit}"] if limit else []
    return [
        f"requests that come by themselves: {at_most}{_rate(most.rate)}/s {goal} ({share_text(most.share)} of the knee); plan "
        f"with {_rate(most.rate * _ADVISED)}/s a machine, so that a busy minute and a restart do not show",
        *told,
    ]


def parts(result: TuneResult) -> list[Part]:
    command = f"penstock serve {result.path} --config {CONFIG}"
    found = [Part("What was found", (*_sentences(result), *headroom(result)), command=command), _knees(result)]
    if result.worth:
        rows = [(one.name, str(one.value), str(one.default), f"{one.ratio:.2f}×") for one in result.worth]
        texts = ("The best setting against the same with this one option as it is by default, one measurement each.",)
        found.append(Part("What each option is worth", texts, Table(("option", "best", "default", "worth"), "lllr", rows)))
    if result.offered:
        offered = [
            (
                _rate(one.rate),
                share_text(one.share),
                *(seconds_text(one.latency.percentiles[name] / 1e3) for name in ("50", "99", "99.9")),
                f"{one.error_share:.2%}",
                "yes" if one.holds else "not known: the load generator was late" if one.limit else "no",
            )
            for one in result.offered
        ]
        header = ("requests/s", "of the knee", "p50", "p99", "p99.9", "errors", "holds")
        texts = ("Poisson arrivals, whose latency counts from when a request was due: what users would see.",)
        found.append(Part("Requests that come by themselves", texts, Table(header, "rrrrrrl", offered)))
    found.append(_tried(result))
    found.append(Part("How it was measured", _method(result)))
    return found


def _sentences(result: TuneResult) -> tuple[str, ...]:
    told = [f"Sought: {OBJECTIVES[result.objective].meaning}" + (f", with {result.slo}." if result.slo else ".")]
    if not result.is_default:
        interval = "" if result.gain is None else "; in brackets the 95 % interval"
        told.append(f"{result.gain_text[0].upper()}{result.gain_text[1:]}{interval}.")
    if result.best.client_limit:
        told.append(f"Beware: {result.best.client_limit}.")
    return tuple(told)


def _knees(result: TuneResult) -> Part:
    columns = [("the defaults", result.auto)] + ([] if result.is_default else [("the best setting", result.best)])
    rows = [_knee_row(name, figures, result.price_per_hour) for name, figures in columns]
    header = ["", "connections", "requests/s", "95 % interval", "p50", "p99", "CPU a request", "cores", "memory"]
    align = "lrrrrrrrr"
    if result.price_per_hour:
        header.append("a million requests")
        align += "r"
    return Part(
        "The knee", ("Medians over rounds in which the settings took turns.",), Table(header, align, rows, won=len(rows) - 1)
    )


def _knee_row(name: str, figures: Figures, price: float) -> tuple[str, ...]:
    row = (
        *(name, str(figures.connections), _rate(figures.rate), f"{_rate(figures.low)} to {_rate(figures.high)}"),
        *(seconds_text(value / 1e3) for value in (figures.latency.p50, figures.latency.p99)),
        *(seconds_text(figures.cpu_us / 1e6), f"{figures.cores:.2f}", bytes_text(figures.memory_bytes)),
    )
    return (*row, three_digits(per_million(price, figures.rate))) if price else row


def _tried(result: TuneResult) -> Part:
    shown = [name for name in NAMES if len(result.space.get(name, ())) > 1]
    ordered = sorted(result.tried, key=lambda one: -one.measured)[:_ROWS]
    rows = [
        (*(str(getattr(one.setting, name)) for name in shown), three_digits(one.measured), three_digits(one.predicted), one.ended)
        for one in ordered
    ]
    header = (*shown, "measured", "simulated", "ended early")
    won = next((place for place, one in enumerate(ordered) if one.setting == result.winner), -1)
    text = (
        f"{result.measured} of {result.grid:,} settings were measured; the simulation kept {result.worth_measuring:,}. "
        f"Measured: {OBJECTIVES[result.objective].meaning}, in one curve each; the best were then measured again in turn."
    )
    return Part("Settings that were tried", (text,), Table(header, "l" * len(shown) + "rrl", rows, won=won))


def _method(result: TuneResult) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return (
        f"Penstock {result.penstock}, {result.made}, {result.machine.processor}, {result.machine.cores} cores; {versions}.",
        f"Each setting is a server of its own, asked by closed loops of 1, 4, 8, … connections: {result.asked}. The load "
        f"generator runs on the same machine: its share of the cores is missing to the server.",
        f"{result.probes} servers timed the parts of a request first; a simulation of those parts says which settings cannot be "
        f"the best. {result.seconds:.0f} s of a budget of {result.budget_s:.0f} s; {result.rounds} rounds of repeats.",
    )


def charts(result: TuneResult) -> list[tuple[str, str]]:
    """Raises ImportError where there is no matplotlib."""
    drawn = []
    title = "Latency over throughput"
    shown = [_curve("the defaults", 0, result.auto_steps)]
    shown_already = (result.winner, result.defaults)
    others = [
        one for one in sorted(result.tried, key=lambda one: -one.measured) if one.steps and one.setting not in shown_already
    ]
    winner = next((one for one in result.tried if one.setting == result.winner), None)
    if winner is not None:
        shown.append(_curve("the best setting", 1, winner.steps))
    spread = others[:: max(1, len(others) // _OTHERS)][:_OTHERS]
    shown += [_curve(setting_text(one.setting, result.defaults), colour, one.steps) for colour, one in enumerate(spread, 2)]
    drawn.append((title, curves(title, "requests/s", "p99, ms", shown, is_log=True)))
    if surface := _surface(result):
        drawn.append(surface)
    if result.worth:
        title = "What each option is worth"
        given = [Bar(f"{one.name} = {one.value}", 1, one.ratio, f"{one.ratio:.2f}×") for one in result.worth]
        drawn.append((title, bars(title, "times what the default gives", given)))
    if len(result.offered) > 1:
        title = "Latency of requests that come by themselves"
        rates = [one.rate for one in result.offered]
        both = [
            Curve(name, colour, rates, [one.latency.percentiles[number] for one in result.offered])
            for name, colour, number in (("p50", 1, "50"), ("p99", 2, "99"))
        ]
        drawn.append((title, curves(title, "requests/s", "ms", both, is_log=True)))
    return drawn


def _curve(label: str, colour: int, steps: Sequence[Step]) -> Curve:
    return Curve(label, colour, [step.rate for step in steps], [step.latency.p99 for step in steps])


def _surface(result: TuneResult) -> tuple[str, str] | None:
    """The best that was measured for each pair of values of the two options that change most."""
    names = [name for name in NAMES if len(result.space.get(name, ())) > 1]
    if len(names) < 2 or not result.tried:
        return None
    across, up = sorted(sorted(names, key=lambda name: -_spread(result, name))[:2], key=NAMES.index)
    found: dict[tuple[int | str, int | str], float] = {}
    for one in result.tried:
        place = (getattr(one.setting, across), getattr(one.setting, up))
        found[place] = max(found.get(place, 0.0), one.measured)
    given = [
        Cell(column, row, found[x, y], three_digits(found[x, y]))
        for column, x in enumerate(result.space[across])
        for row, y in enumerate(result.space[up])
        if (x, y) in found
    ]
    title = f"The best of each pair of {across} and {up}"
    labels = [[str(value) for value in result.space[name]] for name in (across, up)]
    return title, cells(title, across, labels[0], up, labels[1], given)


def _spread(result: TuneResult, name: str) -> float:
    """How far the best figures of an option's values are apart."""
    best: dict[int | str, float] = {}
    for one in result.tried:
        value = getattr(one.setting, name)
        best[value] = max(best.get(value, 0.0), one.measured)
    return max(best.values()) - min(best.values()) if len(best) > 1 else 0.0


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else three_digits(rate)
