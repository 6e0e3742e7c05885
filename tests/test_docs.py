"""The documentation says what is there: generated pages are fresh, files it names exist, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "penstock"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
_NAMED_FILE = re.compile(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.(?:py|proto|binpb))`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_those_of_the_code() -> None:
    """What `make docs` writes is what is checked in."""
    done = subprocess.run(
        [sys.executable, "tools/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_module_has_its_line() -> None:
    modules = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if file.stat().st_size}
    assert modules - set(_NAMED_FILE.findall(ARCHITECTURE.read_text())) == set()


def test_every_module_that_is_named_exists() -> None:
    named = set(_NAMED_FILE.findall(ARCHITECTURE.read_text()))
    assert {name for name in named if not (PACKAGE / name).is_file()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text()) if "://" not in link]
    # docs/performance.md is written by the benchmark, which needs half an hour and a machine to itself.
    assert [link for link in links if not (page.parent / link).exists() and "performance." not in link] == []


def test_the_figures_of_the_readme_are_those_of_the_page_on_performance() -> None:
    readme = "# P\n\n<!-- performance -->\nold\n<!-- /performance -->\n\nend\n"
    page = (
        "<!-- Made -->\n\n# Performance\n\nMeasured on a machine.\n\n![chart](performance.svg)\n\n"
        "## What it must reach\n\n| work | met |\n| --- | --- |\n| a | yes |\n\n## Side by side\n"
    )
    wanted = (
        "# P\n\n<!-- performance -->\nMeasured on a machine.\n\n"
        "| work | met |\n| --- | --- |\n| a | yes |\n<!-- /performance -->\n\nend\n"
    )
    assert load_tool("generate_docs").with_figures(readme, page) == wanted


@pytest.mark.parametrize(
    ("readme", "page"),
    [
        ("no marks", "# Performance\n\nMeasured on a.\n\n## What it must reach\n\n| a |\n\n## B\n"),
        ("<!-- performance -->\n<!-- /performance -->", "# Performance\n"),
    ],
)
def test_figures_without_a_place_are_an_error(readme: str, page: str) -> None:
    """Neither a page without the table nor a README without the marks passes unnoticed."""
    with pytest.raises(ValueError, match=r"marks|no table"):
        load_tool("generate_docs").with_figures(readme, page)
