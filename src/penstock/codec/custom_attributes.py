"""The header X-Amzn-SageMaker-Custom-Attributes: which model, version and method a request is for (contract §2).

Guarantees: what passes is safe in a path and a route; time is linear in the header.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from penstock.errors import InvalidArgument

METHODS = ("predict", "classify", "regress")

_KEY_LETTERS = string.ascii_lowercase + "-"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_VERSION = re.compile(r"[0-9]+")
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CustomAttributes:
    """What the header asks for; `raw` is the header as it came (empty where it did not), for the user's script."""

    model_name: str | None = None
    model_version: int | None = None
    method: str = "predict"
    raw: str = ""


def parse_custom_attributes(header: str | None) -> CustomAttributes:
    """Reads `tfs-model-name=…`, `tfs-model-version=…` and `tfs-method=…`; all other text in the header is ignored.

    A value runs to the next comma, and the last of equal keys counts. Raises InvalidArgument in the container's words.
    """
    if not header:
        return CustomAttributes()
    found = dict(filter(None, map(_attribute, header.split(","))))
    name = found.get("tfs-model-name")
    if name is not None and not _MODEL_NAME.fullmatch(name):
        raise InvalidArgument("invalid tfs-model-name")
    method = found.get("tfs-method", "predict")
    version = _version(found.get("tfs-model-version"))
    if method not in METHODS:
        raise InvalidArgument("invalid tfs-method: must be one of predict|classify|regress")
    return CustomAttributes(name, version, method, header)


def _version(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.lstrip("0")
    if not _VERSION.fullmatch(text) or len(digits) > 19 or int(digits or "0") > _MAX_VERSION:
        raise InvalidArgument("invalid tfs-model-version: must be a positive integer")
    return int(digits or "0")


def _attribute(part: str) -> tuple[str, str] | None:
    """The first `tfs-<letters and dashes>=<anything>` within the text between two commas."""
    start, equals = 0, part.find("=")
    while equals >= 0:
        segment = part[start:equals]
        run = segment[len(segment.rstrip(_KEY_LETTERS)) :]
        key = run[run.find("tfs-") :] if "tfs-" in run else ""
        if len(key) > len("tfs-") and equals + 1 < len(part):
            return key, part[equals + 1 :].strip()
        start, equals = equals + 1, part.find("=", equals + 1)
    return None
