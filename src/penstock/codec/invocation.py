"""What SageMaker's `/invocations` is asked: its bodies as TensorFlow Serving's JSON, its Accept header as a format.

Guarantees: what generation C of AWS's container turns into something valid (contract §1) becomes exactly that here.
Where it makes invalid JSON of what a person can read, the request is read as it was meant. Time is linear in the body.
Assumes: the answer goes to a JSON decoder, so what is no JSON at all may pass and be refused there.
"""

from __future__ import annotations

import enum
import json
import re
from functools import lru_cache

import simdjson

from penstock.codec.csv import csv_to_json
from penstock.errors import InvalidArgument

_BOM = b"\xef\xbb\xbf"
_JSON_TYPES = frozenset({"application/json", "application/jsonlines", "application/jsons"})
_TFS_KEY = re.compile(rb'"(?:instances|inputs|examples)"\s*:')
# The contract's [}\]]\s*[\[{] in two: a pattern that starts with one literal is searched at the speed of memchr.
_SEAM_AFTER_LIST = re.compile(rb"\]\s*[\[{]")
_SEAM_AFTER_OBJECT = re.compile(rb"\}\s*[\[{]")
_LIST_OF_LISTS = re.compile(rb"\s*\[\s*\[")
_LIST_OF_OBJECTS = re.compile(rb"\s*\[\s*\{")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_QUALITY = re.compile(r";\s*q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)\s*(?:;|$)")
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
#: Numbers stay text: only where a document ends is of interest.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)


class UnsupportedMediaType(InvalidArgument):
    """A body of a type that nobody here can read. No gRPC code says that, so the HTTP status is its own."""

    @property
    def http_status(self) -> int:
        return 415


class Format(enum.Enum):
    """A form of answer, by the name that clients ask for."""

    JSON = "application/json"
    JSON_LINES = "application/jsonlines"
    CSV = "text/csv"
    NPY = "application/x-npy"
    OCTET_STREAM = "application/octet-stream"

    @property
    def content_type(self) -> str:
        """What the answer is labelled: the one-line JSON object that JSON lines get is JSON."""
        return Format.JSON.value if self is Format.JSON_LINES else self.value


def media_type(content_type: str | None) -> tuple[str, dict[str, str]]:
    """The type in lower case without its parameters, and these; empty where the header is missing."""
    kind, semicolon, rest = (content_type or "").partition(";")
    parameters: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(semicolon + rest):
        parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or bare.strip()
    return kind.strip().lower(), parameters


def to_tfs_json(content_type: str | None, body: bytes) -> bytes:
    """The body of a predict request for TensorFlow Serving that `body` stands for.

    The content type tells CSV from JSON; which of the three kinds of JSON it is, the body tells: TensorFlow Serving's
    own passes unchanged, JSON lines are an instance each, and any other document is the one instance, or the list of
    them where it is a list of lists. Raises UnsupportedMediaType.
    """
    kind, _ = media_type(content_type)
    if kind == "text/csv":
        return csv_to_json(body)
    if kind not in _JSON_TYPES:
        raise UnsupportedMediaType(f"Unsupported Media Type: {kind or 'Unknown'}")
    text = body.removeprefix(_BOM)
    if _TFS_KEY.search(text):
        return _tfs_json(text)
    text = text.strip()
    if _has_seam(text):
        return _json_lines(text)
    return _generic_json(text)


@lru_cache(maxsize=256)
def negotiate(accept: str | None) -> Format:
    """The format that an Accept header asks for; JSON where it is missing or names none of ours.

    The highest quality wins, then what is named rather than covered by a wildcard, then what comes first.
    """
    ranges = [_media_range(item) for item in (accept or "").lower().split(",")]
    best, best_rank = Format.JSON, (0.0, 0, 0)
    for candidate in Format:
        specificity, place, quality = max(
            ((_specificity(pattern, candidate), -index, quality) for index, (pattern, quality) in enumerate(ranges))
        )
        rank = (quality, specificity, place)
        if specificity and quality > 0 and rank > best_rank:
            best, best_rank = candidate, rank
    return best


def _tfs_json(text: bytes) -> bytes:
    """Unchanged, unless it is several documents or a list of objects: models have inputs called "inputs" too."""
    if _LIST_OF_OBJECTS.match(text) and not _has_seam(text):
        return _instances(text.strip())
    if _SEAM_AFTER_OBJECT.search(text) and not _is_json(text):
        documents = _documents(text)
        if documents is not None:
            return _list_of_instances(documents)
    return text


def _json_lines(text: bytes) -> bytes:
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(lines) == 1:
        if text.startswith(b"[") and _is_json(text):
            return _instances(text)  # what looked like a seam is in a string; the container sends the line as the list
    else:
        answer = _list_of_instances(lines)
        if _is_json(answer):
            return answer
    if _is_json(text):
        return _generic_json(text)
    return _list_of_instances(_documents(text) or lines)


def _generic_json(text: bytes) -> bytes:
    if _LIST_OF_LISTS.match(text):
        return _instances(text)
    answer = _list_of_instances([text])
    if text[:1] not in b"[{" and not _is_json(answer):
        return _list_of_instances(_documents(text) or [text])
    return answer


def _has_seam(text: bytes) -> bool:
    """Whether a list or an object is followed by another without a comma."""
    return bool(_SEAM_AFTER_LIST.search(text) or _SEAM_AFTER_OBJECT.search(text))


def _is_json(text: bytes) -> bool:
    try:
        simdjson.Parser().parse(text)
    except ValueError:
        return False
    except RuntimeError:  # an integer past 64 bits, which is JSON all the same
        documents = _documents(text)
        return documents is not None and len(documents) == 1
    return True


def _documents(text: bytes) -> list[bytes] | None:
    """The JSON documents that stand one after the other, NaN and Infinity allowed; None if there is anything else."""
    documents: list[bytes] = []
    try:
        decoded = text.decode()
        end = len(decoded.rstrip(" \t\r\n"))
        at = 0
        while at < end:
            start = _JSON_SPACE.match(decoded, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            _, at = _SCANNER.raw_decode(decoded, start)
            documents.append(decoded[start:at].encode())
    except (ValueError, RecursionError):
        return None
    return documents


def _instances(value: bytes) -> bytes:
    return b'{"instances":' + value + b"}"


def _list_of_instances(values: list[bytes]) -> bytes:
    return b'{"instances":[' + b",".join(values) + b"]}"


def _media_range(item: str) -> tuple[str, float]:
    quality = _QUALITY.search(item)
    return item.partition(";")[0].strip(), float(quality[1]) if quality else 1.0


def _specificity(pattern: str, candidate: Format) -> int:
    """How closely a media range names a format: 3 by its name, 2 by its family, 1 as anything, 0 not at all."""
    if pattern == candidate.value:
        return 3
    if pattern == candidate.value.partition("/")[0] + "/*":
        return 2
    return 1 if pattern == "*/*" else 0
