"""Importing inference.py, and finding its handlers (contract §3)."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.errors import FailedPrecondition
from penstock.observe.log import get_logger

logger = get_logger("script")

Handler = Callable[[Any, Any], Any]

_MODULE = "inference"


@dataclass(frozen=True, slots=True)
class Handlers:
    """`handler`, or else the pair of `input_handler` and `output_handler`."""

    handler: Handler | None
    pair: tuple[Handler, Handler] | None


def import_handlers(script: Path, search: Sequence[Path]) -> Handlers:
    """The handlers of the file `script`, imported as the module `inference` with `search` at the front of sys.path.

    Raises FailedPrecondition where it cannot be imported (the log has the traceback), or has no handlers.
    """
    front = [str(folder.resolve()) for folder in search]
    sys.path[:] = front + [entry for entry in sys.path if entry not in front]
    return _find(script, _import(script))


def _import(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE, script)
    assert spec is not None  # None is for suffixes that Python does not know
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[_MODULE]
        logger.error("%s cannot be imported", script, exc_info=error)
        raise FailedPrecondition(f"{script} cannot be imported: {described(error)}{_place(error, script)}") from error
    return module


def _find(script: Path, module: ModuleType) -> Handlers:
    handler, first, second = (_callable(module, name) for name in ("handler", "input_handler", "output_handler"))
    if handler is not None:
        return Handlers(handler, None)
    if first is not None and second is not None:
        return Handlers(None, (first, second))
    missing = "input_handler is missing" if second else "output_handler is missing" if first else "none of them is there"
    raise FailedPrecondition(
        f"{script} must define handler(data, context), or both input_handler(data, context) and "
        f"output_handler(response, context); {missing}"
    )


def _callable(module: ModuleType, name: str) -> Handler | None:
    value = getattr(module, name, None)
    return value if callable(value) else None


def described(error: BaseException) -> str:
    """`ValueError: too long`, or the type alone where there is no message."""
    text = message_of(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def message_of(error: BaseException) -> str:
    """`str(error)`, as text that can be sent; empty where a class of the user's fails at that."""
    try:
        return sendable(str(error))
    except Exception:
        return ""


def sendable(text: str) -> str:
    """`text` with what UTF-8 has no bytes for replaced."""
    return text.encode(errors="replace").decode()


def _place(error: BaseException, script: Path) -> str:
    """Where: at the syntax error, or the innermost line that is in the script's folder; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [(file, line) for file, line in frames if Path(file).is_relative_to(script.parent)]
    return " ({}, line {})".format(*theirs[-1]) if theirs else ""
