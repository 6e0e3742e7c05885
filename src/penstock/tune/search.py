"""Which setting is measured next: Optuna's estimator over what was measured, with the simulation in place of what need not be.

Guarantees: no setting is proposed twice, nor one that the simulation rules out. The same figures give the same proposals.
Assumes that Optuna is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import log
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from penstock.tune.setting import AUTO, Axis, Setting, canonical

if TYPE_CHECKING:
    import optuna

#: Settings that the simulation puts below this share of the best are not measured.
_WORTH = 0.5
#: Of those that it puts first, so many are measured before the estimator proposes any.
_FIRST = 4
#: What the simulation says is alike up to this ratio.
_ALIKE = 1.1
_STARTUP = 5
_MAX_ASKED = 400


class Search:
    """Asked for settings, and told what came of them. `predicted` has the simulation's figure for every setting of the space."""

    def __init__(
        self, space: Sequence[Axis], predicted: Mapping[Setting, float], defaults: Setting = AUTO, seed: int = 0
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._space = space
        self._predicted = predicted
        self._measured: dict[Setting, float] = {}
        self._trials: dict[Setting, optuna.Trial] = {}
        best = max(predicted.values(), default=0.0)
        worth = [setting for setting, value in predicted.items() if value and value >= _WORTH * best]
        self.worth = frozenset(worth)
        self._first = self._spread(sorted(worth, key=lambda setting: _rank(predicted[setting], setting, defaults)))

    @property
    def measured(self) -> Mapping[Setting, float]:
        return self._measured

    def predicted(self, setting: Setting) -> float:
        """The simulation's figure."""
        return self._predicted.get(setting, 0.0)

    def ask(self) -> Setting | None:
        """A setting that was not measured yet; None where there is none that may be worth it."""
        while self._first:
            setting = self._first.pop(0)
            if setting not in self._measured:
                return setting
        if self.worth <= self._measured.keys():
            return None
        for _ in range(_MAX_ASKED):
            trial = self._study.ask()
            setting = self._setting(trial)
            if setting in self._measured:
                self._study.tell(trial, self._measured[setting])
            elif setting not in self.worth:
                self._study.tell(trial, self._predicted.get(setting, 0.0) * self._scale())
            else:
                self._trials[setting] = trial
                return setting
        left = [setting for setting in self._predicted if setting in self.worth and setting not in self._measured]
        return max(left, key=lambda setting: self._predicted[setting])

    def tell(self, setting: Setting, value: float) -> None:
        """What a setting came to; 0 for one that failed."""
        import optuna

        self._measured[setting] = value
        trial = self._trials.pop(setting, None)
        if trial is not None:
            self._study.tell(trial, value)
            return
        kind = optuna.distributions.IntDistribution
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            axis.name: kind(0, len(axis.values) - 1) for axis in self._space
        }
        params = {axis.name: _place(axis, setting) for axis in self._space}
        self._study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))

    def _setting(self, trial: optuna.Trial) -> Setting:
        values = {axis.name: axis.values[trial.suggest_int(axis.name, 0, len(axis.values) - 1)] for axis in self._space}
        return canonical(msgspec.structs.replace(AUTO, **values))

    def _scale(self) -> float:
        """What was measured over what was predicted."""
        ratios = [value / self._predicted[one] for one, value in self._measured.items() if value and self._predicted.get(one)]
        return median(ratios) if ratios else 1.0

    def _spread(self, ordered: Sequence[Setting]) -> list[Setting]:
        """The first of each engine, and then the best: alike settings say alike things, so each differs in two values."""
        engines = dict.fromkeys(setting.engine for setting in ordered)
        chosen = [next(setting for setting in ordered if setting.engine == engine) for engine in engines]
        for setting in ordered:
            if len(chosen) >= _FIRST:
                break
            if all(len(setting.differences(other)) >= 2 for other in chosen):
                chosen.append(setting)
        return chosen


def _rank(value: float, setting: Setting, defaults: Setting) -> tuple[int, int]:
    """The best first; of those that the simulation hardly tells apart, the ones that are nearest to the defaults."""
    return -round(log(value) / log(_ALIKE)), len(setting.differences(defaults))


def _place(axis: Axis, setting: Setting) -> int:
    """Where the value of a setting is among those of an axis; the first stands for one that makes no difference."""
    value = getattr(setting, axis.name)
    return list(axis.values).index(value) if value in axis.values else 0
