"""TensorFlow's ProfilerService, as far as there is something to say: Monitor tells what was asked and how long it took.

Profiles of the graph's operations are not taken, and Profile says so.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf.message import DecodeError

from penstock.codec.protobuf_wire import malformed
from penstock.codec.protos import message_class
from penstock.errors import Unimplemented
from penstock.observe.metrics import STAGES, Collect, Collected, Series, merge
from penstock.wire.grpc import GrpcCall, Method, Methods, Reply

_SERVICE = "tensorflow.ProfilerService"
_MAX_S = 60.0
_INFER = STAGES.index("infer")

_MonitorRequest = message_class("tensorflow.MonitorRequest")
_MonitorResponse = message_class("tensorflow.MonitorResponse")


class ProfilerService:
    """The service. `collect` gets the figures of all gateways."""

    names = (_SERVICE,)

    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def methods(self) -> Methods:
        return {f"/{_SERVICE}/Monitor": Method(self._monitor), f"/{_SERVICE}/Profile": Method(_profile)}

    def _monitor(self, call: GrpcCall) -> None:
        """Looks at the figures, and once more after the time that the client asks for, a minute at the most."""
        try:
            request = _MonitorRequest.FromString(bytes(call.message))
        except DecodeError:
            raise malformed("it is no MonitorRequest") from None
        duration_s = min(request.duration_ms / 1000, _MAX_S)

        def began(before: Collected) -> None:
            asyncio.get_running_loop().call_later(duration_s, self._collect, lambda after: ended(before, after))

        def ended(before: Collected, after: Collected) -> None:
            text = report(merge(before.snapshots), merge(after.snapshots), duration_s)
            if request.timestamp:
                text = f"Timestamp: {time.strftime('%H:%M:%S')}\n{text}"
            call.answer(Reply((_MonitorResponse(data=text).SerializeToString(),)))

        self._collect(began)


def report(before: list[Series], after: list[Series], duration_s: float) -> str:
    """What was answered between two looks at the figures: a line for each model, version and API."""
    earlier = {(one.model, one.version, one.api): one for one in before}
    lines = [_line(earlier.get((one.model, one.version, one.api)), one) for one in after]
    told = [line for line in lines if line]
    return f"Requests in {duration_s:g} s:\n" + ("".join(f"{line}\n" for line in told) or "none\n")


def _line(before: Series | None, after: Series) -> str:
    codes = {code: count - (before.codes.get(code, 0) if before else 0) for code, count in after.codes.items()}
    total = sum(codes.values())
    if not total:
        return ""
    sums = [now - then for now, then in zip(after.sums_ns, before.sums_ns if before else [0] * len(STAGES), strict=True)]
    failed = total - codes.get("OK", 0)
    name = f"model {after.model} version {after.version}" if after.model else "no model"
    times = f"{sum(sums) / total / 1e6:.3f} ms each, {sums[_INFER] / total / 1e6:.3f} ms of it in the model"
    return f"{name}, {after.api}: {total} answered, {failed} with an error, {times}"


def _profile(call: GrpcCall) -> None:
    raise Unimplemented("This server takes no profiles of operations. Monitor and /metrics tell how long requests take.")
