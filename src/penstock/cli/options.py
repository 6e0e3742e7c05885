"""Command-line flags and settings files from the fields of an options class."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import click

from penstock.config import ServeOptions, environment_name, flag_name
from penstock.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def serve_options(*, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """A decorator that gives a command a flag for each field of ServeOptions. Flags that are not given are None."""

    def decorate(function: F) -> F:
        for item in reversed(fields(ServeOptions)):
            if item.name not in without:
                function = _flag(item)(function)
        return function

    return decorate


def _flag(item: Field[Any]) -> Callable[[F], F]:
    kind = _kind(item)
    text = item.metadata["text"]
    shown = "" if item.default in ("", (), False) else f"  [default: {item.default}]"
    settings: dict[str, Any] = {"help": text + shown, "default": None, "envvar": environment_name(item.name)}
    if item.metadata["repeats"]:
        return click.option(flag_name(item.name), item.name, multiple=True, help=text)
    if kind is bool:
        return click.option(f"{flag_name(item.name)}/--no-{item.name.replace('_', '-')}", item.name, **settings)
    if item.metadata["choices"]:
        return click.option(flag_name(item.name), item.name, type=click.Choice(item.metadata["choices"]), **settings)
    return click.option(flag_name(item.name), item.name, type=kind, **settings)


def _kind(item: Field[Any]) -> Any:
    hint = _kinds()[item.name]
    return tuple if typing.get_origin(hint) is tuple else hint


@cache
def _kinds() -> Mapping[str, Any]:
    return typing.get_type_hints(ServeOptions)


def build_options(
    given: Mapping[str, Any],
    config: str | None,
    environment: Mapping[str, str],
    under: Mapping[str, Any] | None = None,
) -> ServeOptions:
    """The options from flags (with the environment laid under them by click), the file, `under` and the defaults.

    Raises UsageError for a file that cannot be read or has names or types that are not ours.
    """
    values = dict(under or {})
    if config:
        values.update(read_file(Path(config)))
    for item in fields(ServeOptions):
        if item.metadata["repeats"] and environment.get(environment_name(item.name)):
            values[item.name] = tuple(part.strip() for part in environment[environment_name(item.name)].split(","))
    values.update({name: value for name, value in given.items() if value is not None and value != ()})
    return ServeOptions(**values)


def read_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: {error}") from None
    known = {item.name: item for item in fields(ServeOptions)}
    values: dict[str, Any] = {}
    for name, value in table.items():
        item = known.get(name.replace("-", "_"))
        if item is None:
            raise UsageError(f"--config {path}: there is no option {name}; see docs/options.md")
        kind = _kind(item)
        if kind is tuple and isinstance(value, list):
            value = tuple(str(one) for one in value)
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UsageError(f"--config {path}: {name} must be {kind.__name__}, not {type(value).__name__}")
        values[item.name] = value
    return values
