"""A point of the search: the values of the server's options that are tuned, and which values each of them may have.

Guarantees: settings that would be served alike are one setting (`canonical`), so that none is measured twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import msgspec

from penstock.config import flag_name
from penstock.errors import UsageError

#: Caps of a batch, and µs that a request may wait for others to join its.
_CAPS = (1, 8, 32, 128)
_WAITS_US = (0, 500, 2000)
_SCRIPT_THREADS = (1, 4, 16)
#: Values of an option that depends on the cores.
_FEW = 4


class Setting(msgspec.Struct, frozen=True):
    """Fields are options of the server, by their names; with 0, or "auto", the server decides."""

    gateways: int = 0
    instances: int = 0
    engine: str = "auto"
    intra_op: int = 0
    inter_op: int = 0
    max_batch_size: int = 128
    batch_timeout_us: int = 0
    script_threads: int = 8
    omp_threads: int = 0

    def flags(self) -> list[str]:
        """What `penstock serve` is started with."""
        return [text for name in NAMES for text in (flag_name(name), str(getattr(self, name)))]

    def with_value(self, name: str, value: int | str) -> Setting:
        return canonical(msgspec.structs.replace(self, **{name: value}))

    def differences(self, other: Setting) -> dict[str, int | str]:
        """The values of those options that `other` has other values of."""
        return {name: getattr(self, name) for name in NAMES if getattr(self, name) != getattr(other, name)}


#: The options that are tuned.
NAMES = Setting.__struct_fields__
#: Every decision is the server's.
AUTO = Setting()


class Axis(NamedTuple):
    """An option with the values that are tried, in their order."""

    name: str
    values: Sequence[int | str]


class Subject(NamedTuple):
    """What is known of a model before it is served. `engines` has those that can run it: TensorFlow, and its plan's."""

    engines: Sequence[str]
    is_stateful: bool
    takes_batches: bool
    has_script: bool
    has_own_threads: bool = True
    has_plan: bool = False


def axes(subject: Subject, cores: int) -> list[Axis]:
    """The space: powers of two up to the cores for processes and threads; nothing that cannot matter for the model."""
    powers = powers_of_two(cores)
    batches = subject.takes_batches and not subject.is_stateful
    return [
        Axis("gateways", powers),
        Axis("instances", (1,) if subject.is_stateful else powers),
        Axis("engine", tuple(subject.engines)),
        Axis("intra_op", powers),
        Axis("inter_op", (0, cores) if subject.has_own_threads and cores > 1 else (0,)),
        Axis("max_batch_size", _CAPS if batches else (_CAPS[-1],)),
        Axis("batch_timeout_us", _WAITS_US if batches else (0,)),
        Axis("script_threads", _SCRIPT_THREADS if subject.has_script else (AUTO.script_threads,)),
        Axis("omp_threads", tuple(dict.fromkeys((1, cores))) if subject.has_script else (AUTO.omp_threads,)),
    ]


def fixed(text: str) -> tuple[str, int | str]:
    """`NAME=VALUE` of an option that is not to be tuned. Raises UsageError."""
    name, equals, value = text.replace("-", "_").partition("=")
    if not equals or name not in NAMES:
        raise UsageError(f"--set {text}: expected NAME=VALUE with one of {', '.join(NAMES)}")
    if isinstance(getattr(AUTO, name), str):
        return name, value
    if not (value.isascii() and value.isdigit()):
        raise UsageError(f"--set {text}: expected a number")
    return name, int(value)


def keep(space: Sequence[Axis], values: Mapping[str, int | str]) -> list[Axis]:
    """The space with one value for each of those options."""
    return [Axis(axis.name, (values[axis.name],)) if axis.name in values else axis for axis in space]


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4 … and `most` itself; of many, a few that are evenly apart."""
    found = [*(1 << exponent for exponent in range(most.bit_length()) if 1 << exponent < most), most]
    if len(found) <= _FEW:
        return tuple(found)
    return tuple(found[round(place * (len(found) - 1) / (_FEW - 1))] for place in range(_FEW))


def grid(space: Sequence[Axis]) -> list[Setting]:
    """All settings of a space."""
    return list(dict.fromkeys(_all(space)))


def _all(space: Sequence[Axis]) -> Iterator[Setting]:
    for values in product(*(axis.values for axis in space)):
        yield canonical(Setting(**dict(zip((axis.name for axis in space), values, strict=True))))  # type: ignore[arg-type]


def canonical(setting: Setting) -> Setting:
    """The setting that stands for all that are served like it: what is never put together waits for nothing."""
    if setting.max_batch_size == 1 and setting.batch_timeout_us:
        setting = msgspec.structs.replace(setting, batch_timeout_us=0)
    if setting.inter_op and setting.engine not in ("auto", "tensorflow"):
        setting = msgspec.structs.replace(setting, inter_op=0)
    return setting
