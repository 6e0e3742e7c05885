"""Options that change while the server serves: hosts with the new ones take the place of those with the old.

Guarantees: requests go on meanwhile, and none is lost. Where a model cannot be run so, all run as before, and the one who asked
is told why. A model that keeps state is left as it is: its state would be lost with its host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from penstock.config import ServeOptions
from penstock.errors import InvalidArgument, PenstockError, Unavailable, UsageError
from penstock.models.version import Version
from penstock.process.host_specs import HostSpecs
from penstock.process.hosts import Done, Hosts
from penstock.process.messages import SettingsNow
from penstock.serving.routes import State

#: Options of the processes of models; gateways, ports and what belongs to zygotes are there from the start.
LIVE: Mapping[str, type] = {
    "instances": int,
    "engine": str,
    "intra_op": int,
    "inter_op": int,
    "max_batch_size": int,
    "batch_timeout_us": int,
    "latency_target_ms": float,
    "script_threads": int,
}


class LiveSettings:
    """The options of now. `versions` are those that are served; one change is made at a time, `changed` is told of each."""

    def __init__(
        self,
        options: ServeOptions,
        make_specs: Callable[[ServeOptions], HostSpecs],
        hosts: Hosts,
        versions: Callable[[], Sequence[Version]],
        changed: Callable[[SettingsNow], None],
    ) -> None:
        self.options = options
        self._make_specs, self._hosts, self._versions, self._changed = make_specs, hosts, versions, changed
        self._is_changing = False

    def message(self) -> SettingsNow:
        """What gateways are told."""
        return SettingsNow({name: getattr(self.options, name) for name in LIVE})

    def change(self, values: Mapping[str, int | float | str], done: Done) -> None:
        """Has all versions run with these options, one after the other, and tells when they do."""
        try:
            options = self._with(values)
        except PenstockError as error:
            done(error)
            return
        if self._is_changing:
            done(Unavailable("Other settings are being put in place."))
            return
        before = self.options
        self._is_changing = True
        self._use(options)
        todo = [one for one in self._versions() if one.state is State.AVAILABLE and not one.is_stateful]
        self._next(todo, [], before, done)

    def _next(self, todo: list[Version], changed: list[Version], before: ServeOptions, done: Done) -> None:
        if not todo:
            self._is_changing = False
            self._changed(self.message())
            done(None)
            return
        version = todo[0]

        def renewed(error: PenstockError | None) -> None:
            if error is None or version.state is not State.AVAILABLE:  # what has gone meanwhile needs no other hosts
                self._next(todo[1:], [*changed, version], before, done)
                return
            self._use(before)
            for one in changed:
                self._hosts.renew(one, lambda _: None)
            self._is_changing = False
            done(error)

        self._hosts.renew(version, renewed)

    def _use(self, options: ServeOptions) -> None:
        self.options = options
        self._hosts.change(options, self._make_specs(options))

    def _with(self, values: Mapping[str, int | float | str]) -> ServeOptions:
        """Raises InvalidArgument for what is no option, cannot be changed, or has no such value."""
        for name, value in values.items():
            kind = LIVE.get(name)
            if kind is None:
                raise InvalidArgument(f"{name} cannot be changed while the server runs; what can: {', '.join(LIVE)}")
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise InvalidArgument(f"{name} is {value!r}: expected {kind.__name__}")
        try:
            return replace(self.options, **values)  # type: ignore[arg-type]
        except UsageError as error:
            raise InvalidArgument(str(error)) from None
