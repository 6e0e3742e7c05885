"""What a script's output_handler gets: the engine's answer, in the shape of a `requests.Response`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from penstock.tensors import Array

JSON_TYPE = "application/json"


class Headers(Mapping[str, str]):
    """Header fields, whose names are equal in upper and lower case."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): (name, value) for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return repr(dict(self))


class Response:
    """An answer of TensorFlow Serving's REST API, always 200: errors of the engine never get as far as output_handler.

    `arrays` are the outputs by name. Everything else is as `requests` has it; `content` is encoded from the arrays when
    it, or what depends on it, is first asked for, and so a script that uses `arrays` pays for no JSON.
    """

    status_code = 200
    reason = "OK"
    ok = True

    def __init__(self, arrays: Mapping[str, Array], encode: Callable[[], bytes], url: str, elapsed: timedelta) -> None:
        self.arrays = dict(arrays)
        self.url = url
        self.elapsed = elapsed
        self.encoding: str | None = "utf-8"
        self._encode = encode

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"

    @cached_property
    def content(self) -> bytes:
        return self._encode()

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding or "utf-8", "replace")

    @cached_property
    def headers(self) -> Headers:
        return Headers({"Content-Type": JSON_TYPE, "Content-Length": str(len(self.content))})

    def json(self, **options: Any) -> Any:
        """The answer as Python objects; `options` are those of `json.loads`."""
        return json.loads(self.content, **options)

    def raise_for_status(self) -> None:
        """Raises nothing: the status is 200."""

    def iter_content(self, chunk_size: int | None = 1, decode_unicode: bool = False) -> Iterator[Any]:
        """The content in pieces of `chunk_size` bytes (characters, if decoded), or in one piece."""
        content = self.text if decode_unicode else self.content
        size = chunk_size or max(1, len(content))
        return (content[start : start + size] for start in range(0, len(content), size))

    def iter_lines(
        self, chunk_size: int = 512, decode_unicode: bool = False, delimiter: str | bytes | None = None
    ) -> Iterator[Any]:
        """The lines of the content, without their ends; `chunk_size` has no effect."""
        content: Any = self.text if decode_unicode else self.content
        return iter(content.split(delimiter) if delimiter else content.splitlines())
