"""The report: what matters first, every candidate with its reason whole, both forms the same, and nothing in it that runs."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from penstock.models.plan import AS_SAVED, Machine, Plan, Proof, Speed, VariantReport
from penstock.optimize.report import html, markdown, write_report
from penstock.report.figures import bytes_text, seconds_text, share_text, three_digits

MACHINE = Machine("x86_64", "A Processor 3000", 2, ["avx2", "fma"])
VOID = {"meta", "br", "hr", "use", "link"}
HOSTILE = '<script>alert("1")</script> | `rm` $x_1^2$ ![a](http://b) __c__ &amp; \x7f 漢'


def speeds(one_row_ms: float, batches: tuple[int, ...] = (1, 16)) -> list[Speed]:
    """By one caller with two threads, and by two callers with one each, which give a tenth more rows."""
    found = []
    for batch in batches:
        time = one_row_ms * (1 + batch) / 2
        found.append(Speed(2, 1, batch, time, time * 0.9, time * 1.1, batch / time * 1e3))
        found.append(Speed(1, 2, batch, time * 1.8, time, time * 2, batch / time * 1.1e3))
    return found


def proof(signature: str = "serving_default", output: str = "y", cases: int = 20, top1: float | None = None) -> Proof:
    return Proof(signature, output, cases, 1.5e-6, 2.5e-5, 1 - 1e-9, top1, "7 rows, large")


def saved() -> VariantReport:
    return VariantReport(AS_SAVED, "tensorflow", "fp32", "proven", "", 20_000_000, 1.2, 100_000_000, [], speeds(28.0))


def variant(name: str, speedup: float | None = None, low: float = 1.0, high: float = 1.0) -> VariantReport:
    """A proven one; without a speedup it was not raced."""
    engine, _, precision = name.partition("-")
    raced = (
        {} if speedup is None else {"speedup": speedup, "speedup_low": low, "speedup_high": high, "speeds": speeds(28 / speedup)}
    )
    made = VariantReport(name, engine, precision, "proven", "", 10_000_000, 0.05, 40_000_000, [proof()], threads=1, instances=2)
    return msgspec.structs.replace(made, **raced)


def unproven(name: str, state: str, reason: str) -> VariantReport:
    engine, _, precision = name.partition("-")
    return VariantReport(name, engine, precision, state, reason)


def plan(*others: VariantReport, winner: str = AS_SAVED) -> Plan:
    variants = [saved(), *others]
    return Plan(
        "2026-03-04T05:06:07+00:00",
        "1.2.3",
        "ranker/7",
        "0123456789abcdef",
        MACHINE,
        {"tensorflow": "2.21.0", "openvino": "2026.1"},
        winner,
        variants,
        {} if winner == AS_SAVED else {winner: winner},
        {"as saved": 25_000_000, **{one.name: one.size_bytes for one in variants if one.size_bytes}},
        "made from the signatures",
    )


def won(*others: VariantReport) -> Plan:
    return plan(variant("openvino-fp32", 3.214, 3.1, 3.35), *others, winner="openvino-fp32")


class Reader(HTMLParser):
    """Takes a page apart: its text, tags and attributes; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", set[str](), list[tuple[str, str | None]]()
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += f" {data}"


def row_of(text: str, name: str) -> str:
    """The line of Markdown that is about a variant, in its first table."""
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


def test_the_winner_comes_first_with_its_interval_and_the_inputs_it_was_proven_over() -> None:
    sentence = "openvino-fp32 won, 3.21 times as quick as TensorFlow (95 % interval 3.10 to 3.35), proven over 20 inputs."
    assert markdown(won()).splitlines()[:3] == ["# ranker/7", "", f"**{sentence}**"]
    assert html(won()).index(sentence) < html(won()).index("<table")


def test_inputs_are_counted_once_for_all_outputs_of_a_signature() -> None:
    proofs = [proof(output="a"), proof(output="b", cases=19), proof("other", "a", 5)]
    several = msgspec.structs.replace(variant("openvino-fp32", 2.0, 1.9, 2.1), proofs=proofs)
    text = markdown(plan(several, winner="openvino-fp32"))
    assert "proven over 25 inputs" in text
    assert "| openvino-fp32 | other | a | 5 | 1.50e-6 | 2.50e-5 | 1.00e-9 | – | 7 rows, large |" in text


def test_a_winner_with_reduced_precision_says_within_which_bounds() -> None:
    assert "proven within the bounds of int8 over 20 inputs" in markdown(
        plan(variant("openvino-int8", 2.0), winner="openvino-int8")
    )


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([], "no other form of the model was tried."),
        (
            [variant("onnxruntime-fp32", 0.91, 0.9, 0.92), variant("openvino-fp32", 1.01, 0.98, 1.04)],
            "no proven variant is quicker beyond doubt. "
            "The nearest, openvino-fp32, is 1.01 times as quick (95 % interval 0.980 to 1.04).",
        ),
        (
            [unproven("openvino-fp32", "refused", "off"), unproven("onnxruntime-fp32", "failed", "no such operation")],
            "no candidate was proven. openvino-fp32 was refused; onnxruntime-fp32 failed; the reasons are below.",
        ),
        ([variant("openvino-fp32")], "what was proven has not been raced."),
    ],
)
def test_where_tensorflow_stays_it_says_why(others: list[VariantReport], why: str) -> None:
    assert f"**TensorFlow stays: {why}**" in markdown(plan(*others))
    assert f"TensorFlow stays: {why}" in html(plan(*others))


def test_every_candidate_has_its_figures() -> None:
    text = markdown(won())
    assert row_of(text, "tensorflow").split(" | ")[1:5] == ["as saved", "1", "28.0 ms (25.2 to 30.8)", "73.9"]
    assert row_of(text, "openvino-fp32") == (
        "| openvino-fp32 | proven, won | 3.21× (3.10 to 3.35) | 8.71 ms (7.84 to 9.58) | 238 | batch 16, 2 callers, 1 thread "
        "| 10.0 MB (40 %) | 50.0 ms | 40.0 MB |"
    )


def test_the_time_of_one_row_is_that_of_one_caller() -> None:
    """With the threads that are quickest at it, not those that give most rows."""
    slow_first = msgspec.structs.replace(variant("openvino-fp32", 2.0), speeds=[Speed(1, 1, 1, 9, 9, 9, 1), *speeds(4.0)])
    assert "| 4.00 ms (3.60 to 4.40) |" in row_of(markdown(plan(slow_first)), "openvino-fp32")


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_a_reason_is_never_cut(state: str) -> None:
    reason = "serving_default, 7 rows, large: " + "it goes on and on " * 100 + "to the end"
    made = won(unproven("onnxruntime-fp32", state, reason))
    assert row_of(markdown(made), "onnxruntime-fp32").startswith(f"| onnxruntime-fp32 | {state} | – | – | – |")
    assert reason in markdown(made)
    assert reason in html(made)


def test_a_reason_of_several_lines_is_one_row() -> None:
    text = markdown(won(unproven("onnxruntime-fp32", "failed", "first\nsecond | third")))
    assert row_of(text, "onnxruntime-fp32").endswith("| first second \\| third |")


def test_a_measure_of_the_users_own_is_told() -> None:
    made = msgspec.structs.replace(variant("openvino-fp16", 2.0), drop=0.00214)
    assert "the measure of --metric drops by 0.00214" in markdown(plan(made))
    assert "the bounds of int8 hold" in markdown(plan(made))


@pytest.mark.parametrize("form", [markdown, html])
def test_it_says_where_and_with_what_it_was_measured_and_how_to_serve_it(form: object) -> None:
    assert callable(form)
    text = form(msgspec.structs.replace(won(), samples="day.npz"))
    for expected in (
        "A Processor 3000 (x86", "avx2, fma", "Penstock 1.2.3; openvino 2026.1, tensorflow 2.21.0", "2026-03-04T05:06:07+00:00",
        "0123456789abcdef", "day.npz", "in turn", "bootstrap", "penstock serve PATH", "2 processes of 1 thread",
        "not openvino 2026.1", "--plan trust", "relative 0.0002",
    ):  # fmt: skip
        assert expected in text


def test_the_page_has_three_charts_in_the_colours_of_its_text() -> None:
    pytest.importorskip("matplotlib")
    page = html(won(unproven("onnxruntime-fp32", "failed", "broken")))
    charts = re.findall(r"<figcaption>(.*?)</figcaption><svg.*?</svg>", page, re.DOTALL)
    assert [title.partition(":")[0] for title in charts] == [
        "Time of one row alone, with its 95 % interval", "Rows per second, with the best setting of each", "Size on disk"
    ]  # fmt: skip
    assert "currentColor" in page
    assert re.search(r"<text[^>]*>8.71 ms</text>", page)
    assert re.search(r"<text[^>]*>as saved</text>", page)


def test_the_same_plan_makes_the_same_page() -> None:
    assert html(won()) == html(won())


def test_a_signature_without_batches_has_bars_of_rows() -> None:
    pytest.importorskip("matplotlib")
    made = msgspec.structs.replace(variant("openvino-fp32", 2.0), speeds=speeds(4.0, (1,)))
    page = html(msgspec.structs.replace(plan(made), variants=[msgspec.structs.replace(saved(), speeds=speeds(8.0, (1,))), made]))
    assert re.search(r"<text[^>]*>275</text>", page)
    assert "rows of a batch" not in page


def test_a_plan_without_a_race_has_a_page() -> None:
    unraced = msgspec.structs.replace(plan(), variants=[msgspec.structs.replace(saved(), speeds=[])])
    assert "Time of one row alone" not in html(unraced)
    assert "| tensorflow | as saved, stays | 1 | – | – | – | 20.0 MB (80 %) |" in markdown(unraced)


def test_without_matplotlib_one_line_stands_for_the_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = html(won())
    assert "There are no charts: matplotlib is not installed" in page
    assert "<svg" not in page
    assert "3.21× (3.10 to 3.35)" in page


def test_what_others_wrote_stays_text() -> None:
    """Markup in names, reasons, inputs and versions neither runs, nor is fetched, nor breaks the page."""
    evil = msgspec.structs.replace(
        variant("openvino-fp32", 3.0, 2.9, 3.1),
        name=HOSTILE,
        reason=HOSTILE,
        proofs=[msgspec.structs.replace(proof(HOSTILE, HOSTILE), worst=HOSTILE)],
    )
    made = msgspec.structs.replace(
        plan(evil, winner=HOSTILE), model=HOSTILE, samples=HOSTILE, versions={HOSTILE: HOSTILE}, made=HOSTILE,
        machine=Machine(HOSTILE, HOSTILE, 2, [HOSTILE]), fingerprint=HOSTILE, sizes={"as saved": 2, HOSTILE: 1},
    )  # fmt: skip
    page = Reader(html(made))
    assert not page.tags & {"script", "img", "iframe", "link", "a", "object", "base"}
    assert [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")] == []
    assert all((value or "").startswith("#") for name, value in page.attributes if name == "xlink:href")
    assert page.text.count('<script>alert("1")</script>') > 5
    text = markdown(made)
    assert "<" not in text
    assert "](" not in text.replace("\\](", "")
    assert {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| &lt;")} == {10, 11}


def test_the_page_forbids_the_network() -> None:
    page = html(won())
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in page
    assert not re.search(r"url\((?!#)|@import|<script", page)


def test_ids_are_unique() -> None:
    ids = [value for name, value in Reader(html(won())).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_both_forms_are_written_beside_the_plan(tmp_path: Path) -> None:
    write_report(tmp_path, won())
    assert (tmp_path / "report.md").read_text("utf-8") == markdown(won())
    assert (tmp_path / "report.html").read_text("utf-8") == html(won())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1.00"), (3.14159, "3.14"), (99.96, "100"), (999.6, "1,000"), (123456.0, "123,000"), (0.05, "0.0500"),
        (0.00012345, "1.23e-4"), (-2.0, "-2.00"), (float("inf"), "infinite"), (float("nan"), "not a number"),
    ],
)  # fmt: skip
def test_three_digits_count(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_figures_have_units() -> None:
    assert [seconds_text(one) for one in (3.61e-5, 0.0095, 1.5)] == ["36.1 µs", "9.50 ms", "1.50 s"]
    assert [bytes_text(one) for one in (900, 14_235_265, 2_500_000_000)] == ["0.900 kB", "14.2 MB", "2.50 GB"]


def test_only_all_of_them_is_100_percent() -> None:
    assert [share_text(one) for one in (1.0, 0.9999999, 0.95)] == ["100 %", "99.999 %", "95 %"]
