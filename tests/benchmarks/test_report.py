"""The page on performance: sections take their own places, and what was not measured stays."""

from benchmarks.report import OTHERS, PEERS_HEADING, TUNED_HEADING, introduction, requirements_table, sections, with_sections
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


MACHINE: dict[str, str | int | float] = dict.fromkeys(
    ("processor", "system", "python", "cores", "memory_gib", "load_average_before"), 1
)


def test_earlier_runs_stand_beside_a_figure_and_change_no_verdict() -> None:
    memory = [
        Results(f"2026-01-0{day}T09:30:00", name, MACHINE, {}, {}, unique_mb={"gateway": [mb, mb]})
        for day, name, mb in ((1, "aaa", 9.0), (2, "bbb", 50.0), (3, "ccc", 41.0))
    ]
    *earlier, now = memory
    assert "2026-01-01 09:30 at `aaa`, then 2026-01-02 09:30 at `bbb`." in introduction(now, earlier)
    head, _, *rows = requirements_table(now, earlier).splitlines()
    assert head == "| work | figure | at least / at most | measured | met | before | before |"
    (row,) = [row for row in rows if "a second gateway" in row]
    assert row.endswith("| ≤ 40 MB | 41.0 MB | **no** | 9.0 MB | 50.0 MB |")
