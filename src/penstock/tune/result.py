"""What tuning found, as it is kept: JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.bench.result import Latency
from penstock.errors import UsageError
from penstock.models.plan import Machine
from penstock.tune.curve import Step
from penstock.tune.setting import Setting

FILE = "tune.json"


class Figures(msgspec.Struct, frozen=True):
    """A setting at its knee: medians over the rounds in which it was measured, and the 95 % interval of the throughput."""

    connections: int
    rate: float
    low: float
    high: float
    latency: Latency
    cpu_us: float
    cores: float
    memory_bytes: int
    client_limit: str


class Offered(msgspec.Struct, frozen=True):
    """Requests that came by themselves, as many a second: what users would see. `holds`: the goal was held.

    Where it was not, `limit` may say that the load generator is why.
    """

    rate: float
    share: float
    latency: Latency
    error_share: float
    holds: bool
    limit: str = ""


class Worth(msgspec.Struct, frozen=True):
    """What an option is worth: the winner's figure over that of the winner with the default of this option."""

    name: str
    value: int | str
    default: int | str
    ratio: float


class Tried(msgspec.Struct, frozen=True):
    """A setting of the search: the simulation's figure, the measured one, and why it ended early."""

    setting: Setting
    predicted: float
    measured: float
    ended: str
    steps: list[Step]


class TuneResult(msgspec.Struct, frozen=True):
    """All of it. `value` is what the objective makes of a curve; those of `tried` and `auto_value` can be compared.

    `grid` is how many settings the space has, `probes` how many servers were started to time the parts of a request.
    `defaults` is what the server decides by itself here; `is_default`: no setting was beyond doubt better.
    `rows` is what each request brought. `gain` is how many times as good as the defaults, with its interval: None where those do
    not even hold the goal.
    """

    made: str
    penstock: str
    model: str
    path: str
    asked: str
    machine: Machine
    versions: dict[str, str]
    slo: str
    objective: str
    budget_s: float
    seconds: float
    space: dict[str, list[int | str]]
    grid: int
    worth_measuring: int
    probes: int
    rounds: int
    defaults: Setting
    winner: Setting
    is_default: bool
    auto: Figures
    best: Figures
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    offered: list[Offered]
    worth: list[Worth]
    tried: list[Tried]
    auto_steps: list[Step]
    price_per_hour: float = 0.0
    rows: int = 1
    version: int = 1

    @property
    def chosen(self) -> dict[str, int | str]:
        """The options that the winner has other values of than the defaults."""
        return {} if self.is_default else self.winner.differences(self.defaults)

    @property
    def gain_text(self) -> str:
        if self.gain is None or self.gain_low is None or self.gain_high is None:
            return f"the defaults do not hold {self.slo}"
        return f"{self.gain:.2f} times the defaults ({self.gain_low:.2f} to {self.gain_high:.2f})"

    @property
    def measured(self) -> int:
        """Settings of the space that were measured, however often."""
        return len({one.setting for one in self.tried})

    @property
    def sustained(self) -> Offered | None:
        """The most that came by itself with the goal held, or, without a goal, with a latency that had not exploded."""
        return max((one for one in self.offered if one.holds), key=lambda one: one.rate, default=None)


def write_tuned(folder: Path, result: TuneResult) -> None:
    """Raises OSError."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read_tuned(path: Path) -> TuneResult:
    """From a file, or the folder that it is in. Raises UsageError."""
    file = path / FILE if path.is_dir() else path
    try:
        return msgspec.json.decode(file.read_bytes(), type=TuneResult)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{file}: is no result of penstock tune: {error}") from None
