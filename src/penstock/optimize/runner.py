"""A variant in a process of its own: loaded in its engine, asked for answers, and timed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.engine.base import EngineOptions
from penstock.engine.engines import make_engine
from penstock.errors import PenstockError
from penstock.models.machine_memory import unique_bytes
from penstock.tensors import Array, Signature

_MIN_CALLS = 3


class Runner:
    """What lives in the process. Methods raise the PenstockError of the engine."""

    def __init__(self, engine: str, folder: Path, options: EngineOptions, op_libraries: Sequence[str] = ()) -> None:
        self._engine = make_engine(engine, op_libraries)
        before = unique_bytes(os.getpid())
        begin = time.perf_counter()
        self._model = self._engine.load(folder, options)
        self.load_s = time.perf_counter() - begin
        self._before = before
        self._inputs: dict[str, dict[str, Array]] = {}

    def signatures(self) -> Mapping[str, Signature]:
        return self._model.signatures

    def answers(self, signature: str, cases: Sequence[Mapping[str, Array]]) -> list[dict[str, Array] | str]:
        """The outputs of each case, or the error's text."""
        found: list[dict[str, Array] | str] = []
        for inputs in cases:
            try:
                found.append(dict(self._model.run(signature, inputs)))
            except PenstockError as error:
                found.append(error.message)
        return found

    def keep(self, name: str, inputs: dict[str, Array]) -> None:
        """Inputs that `time` is then asked for by name: they travel once."""
        self._inputs[name] = inputs

    def time(self, signature: str, name: str, callers: int, seconds: float) -> tuple[list[float], float]:
        """The times of calls in seconds, by so many threads side by side; and calls per second of all of them."""
        inputs = self._inputs[name]
        run = self._model.run
        run(signature, inputs)
        taken: list[list[float]] = [[] for _ in range(callers)]

        def work(mine: list[float]) -> None:
            end = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < end or len(mine) < _MIN_CALLS:
                run(signature, inputs)
                mine.append(time.perf_counter() - begin)

        begin = time.perf_counter()
        if callers == 1:
            work(taken[0])
        else:
            threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        whole = time.perf_counter() - begin
        times = [one for mine in taken for one in mine]
        return times, len(times) / whole

    def figures(self) -> tuple[float, int]:
        """Seconds that loading took, and bytes of memory that the model added to those of the engine's library."""
        return self.load_s, max(0, unique_bytes(os.getpid()) - self._before)
