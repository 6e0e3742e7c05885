"""The page on performance: sections take their own places, and what was not measured stays."""

from benchmarks.report import OTHERS, PEERS_HEADING, TUNED_HEADING, introduction, sections, with_sections
from benchmarks.results import Results

PAGE = "# Performance\n\n## Side by side\n\na\n\n### Part\n\nb\n\n## How it was measured\n\nc\n"


def test_sections_together_are_the_page() -> None:
    found = sections(PAGE)
    assert list(found) == ["", "## Side by side", "## How it was measured"]
    assert found["## Side by side"] == "## Side by side\n\na\n\n### Part\n\nb\n\n"
    assert "".join(found.values()) == PAGE


def test_new_sections_come_before_the_method_in_their_order() -> None:
    text = with_sections(PAGE, {heading: f"{heading}\n\nnew\n\n" for heading in OTHERS})
    assert list(sections(text)) == ["", "## Side by side", *OTHERS, "## How it was measured"]


def test_a_section_takes_the_place_of_the_old_one() -> None:
    text = with_sections(PAGE, {TUNED_HEADING: f"{TUNED_HEADING}\n\nold\n\n", PEERS_HEADING: f"{PEERS_HEADING}\n\nkept\n\n"})
    text = with_sections(text, {TUNED_HEADING: f"{TUNED_HEADING}\n\nnew\n\n"})
    assert "old" not in text
    assert sections(text)[TUNED_HEADING] == f"{TUNED_HEADING}\n\nnew\n\n"
    assert sections(text)[PEERS_HEADING] == f"{PEERS_HEADING}\n\nkept\n\n"


def test_without_new_sections_the_page_stays_as_it_is() -> None:
    assert with_sections(PAGE, {}) == PAGE


def test_figures_that_were_measured_again_say_so() -> None:
    names = ("processor", "system", "python", "cores", "memory_gib", "load_average_before")
    machine: dict[str, str | int | float] = dict.fromkeys(names, 1)
    first = Results("2026-01-01", "aaa", machine, {}, {}, figures={"neighbour": {"p99_ms": [9.0]}, "jpeg": {"p50_ms": [1.0]}})
    later = Results("2026-01-02", "bbb", machine, {}, {}, figures={"neighbour": {"p99_ms": [2.0]}})
    first.replace_figures(later)
    assert first.figures == {"neighbour": {"p99_ms": [2.0]}, "jpeg": {"p50_ms": [1.0]}}
    assert introduction(first).endswith("Measured again at commit `bbb`, alone: `neighbour`.")
