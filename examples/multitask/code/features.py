"""A web page as numbers: which words it has, and how it is built.

Guarantees: the same page gives the same numbers in every process; any bytes are a page, if need be an empty one.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import numpy as np

MAX_WORDS = 256
#: Words are numbered from 1 by a hash; 0 fills up.
VOCABULARY = 20_000

_TAGS = (
    *("a", "article", "b", "br", "button", "code", "div", "em", "footer", "form", "h1", "h2", "h3", "iframe"),
    *("img", "input", "li", "meta", "nav", "p", "script", "section", "span", "table", "ul"),
)
#: What each of the structure's numbers is: how often a tag comes, then seven of the whole page.
STRUCTURE = (*_TAGS, "depth", "words", "distinct_words", "digits", "capitals", "links_elsewhere", "title_words")

_WORD = re.compile(r"\w+")
_SILENT = frozenset({"script", "style"})
_EMPTY = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})


def features(page: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The network's inputs for one page: words [1, 256] as int32 and structure [1, 32] as float32."""
    reader = _Reader()
    try:
        reader.feed(page.decode(errors="replace"))
        reader.close()
    except AssertionError:
        pass  # html.parser, at a declaration like `<![if`: the page ends there
    return {"words": _word_numbers(reader.words), "structure": _structure(reader)}


def _word_numbers(words: list[str]) -> np.ndarray[Any, Any]:
    numbers = np.zeros((1, MAX_WORDS), np.int32)
    first = words[:MAX_WORDS]
    numbers[0, : len(first)] = [zlib.crc32(word.lower().encode()) % (VOCABULARY - 1) + 1 for word in first]
    return numbers


def _structure(reader: _Reader) -> np.ndarray[Any, Any]:
    """Counts as logarithms, because pages differ by orders of magnitude; shares of characters as they are."""
    text = "".join(reader.words)
    whole_page = (
        math.log1p(reader.deepest),
        math.log1p(len(reader.words)),
        math.log1p(len(set(reader.words))),
        sum(map(str.isdigit, text)) / max(len(text), 1),
        sum(map(str.isupper, text)) / max(len(text), 1),
        math.log1p(reader.links_elsewhere),
        math.log1p(reader.title_words),
    )
    return np.array([[*(math.log1p(reader.tags[tag]) for tag in _TAGS), *whole_page]], np.float32)


class _Reader(HTMLParser):
    """Collects words and counts on the way through a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.tags: Counter[str] = Counter()
        self.links_elsewhere = 0
        self.title_words = 0
        self.deepest = 0
        self._open: list[str] = []
        self._open_counts: Counter[str] = Counter()  # so that an end tag without a start costs no search

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag == "a" and (dict(attrs).get("href") or "").startswith(("http://", "https://", "//")):
            self.links_elsewhere += 1
        if tag not in _EMPTY:
            self._open.append(tag)
            self._open_counts[tag] += 1
            self.deepest = max(self.deepest, len(self._open))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Closes the element, and those within that were left open."""
        closed = "" if self._open_counts[tag] else tag
        while closed != tag:
            closed = self._open.pop()
            self._open_counts[closed] -= 1

    def handle_data(self, data: str) -> None:
        innermost = self._open[-1] if self._open else ""
        if innermost in _SILENT:
            return
        words = _WORD.findall(data)
        self.words += words
        if innermost == "title":
            self.title_words += len(words)
