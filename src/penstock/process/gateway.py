"""A gateway: one event loop that speaks HTTP, decodes, submits to hosts and encodes. It loads no engine.

Guarantees: it knows what the supervisor last told it; it ends when the supervisor does; told to drain, it accepts nothing
more and leaves when all that was accepted is answered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from setproctitle import setproctitle

from penstock.config import ServeOptions
from penstock.errors import PenstockError, Unavailable
from penstock.observe import log
from penstock.observe.metrics import Collect, Collected, Metrics
from penstock.process.arena import Arena, ArenaView
from penstock.process.busy_poll import BusyPoll
from penstock.process.channel import ChannelClosed, FrameSocket
from penstock.process.link import HostLink, late
from penstock.process.listening import Listener, tls_context
from penstock.process.malloc import Malloc
from penstock.process.messages import (
    CallFor,
    ChangeSettings,
    CollectMetrics,
    Connect,
    Drain,
    GatewayReady,
    Hung,
    Idle,
    Labels,
    LoadModel,
    MetricsCollected,
    MetricsReport,
    Outcome,
    Regions,
    RegionsKnown,
    RegisterRegion,
    ReloadConfig,
    Retire,
    ServableState,
    SettingsNow,
    UnloadModel,
    UnregisterRegion,
    Used,
    decode_from_supervisor,
    encode,
    signature_of,
)
from penstock.serving.routes import Model, Routes, Servable, State
from penstock.serving.shared_memory import Region, SharedMemory
from penstock.wire import http2
from penstock.wire.grpc import Methods
from penstock.wire.grpcio_server import GrpcioServer, tls
from penstock.wire.request import App
from penstock.wire.server import HttpServer, Limits

_TICK_S = 0.05
_TICKS_PER_SWEEP = 20
_COLLECT_TIMEOUT_S = 2.0
_HANDSHAKE_S = 10.0
#: Requests that may wait for the supervisor to load or unload something.
_MAX_WISHES = 4096
logger = log.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """What a gateway gives to the APIs in it."""

    options: ServeOptions
    routes: Routes
    metrics: Metrics
    collect: Collect
    administration: Gateway
    shared_memory: SharedMemory


@dataclass(frozen=True, slots=True)
class GatewayApp:
    """What a gateway answers: `app` requests of HTTP, `methods` calls of gRPC. `fields` are header lines of every answer.

    `stop` is called when the gateway is told to drain: it ends what would never end by itself.
    """

    app: App
    methods: Methods
    stop: Callable[[], None]
    fields: bytes = b""


MakeApp = Callable[[GatewayContext], GatewayApp]


class Gateway:
    """The gateway's state and its conversation with the supervisor."""

    def __init__(
        self, index: int, listeners: Sequence[Listener], control: FrameSocket, options: ServeOptions, make_app: MakeApp
    ) -> None:
        self._index = index
        self._listeners = listeners
        self._control = control
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._malloc = Malloc()
        self._done = asyncio.Event()
        self._is_introduced = asyncio.Event()
        self._links: set[HostLink] = set()
        self._questions: dict[int, Callable[[Collected], None]] = {}
        self._next_question = 0
        self._wishes: dict[int, Callable[[PenstockError | None], None]] = {}
        self.settings: Mapping[str, int | float | str] = {}
        self._routes = Routes()
        self._metrics = Metrics()
        self._memory = SharedMemory(options.max_message_bytes)
        app = make_app(GatewayContext(options, self._routes, self._metrics, self.collect, self, self._memory))
        limits = Limits(
            max_body_bytes=options.max_body_bytes,
            max_message_bytes=options.max_message_bytes,
            progress_timeout_s=options.read_timeout_s,
            head_timeout_s=min(10.0, options.read_timeout_s),
            idle_timeout_s=options.idle_timeout_s,
        )
        self._stop = app.stop
        polling = BusyPoll(self._loop, options.busy_poll_us / 1e6) if options.busy_poll_us else None
        self._http = HttpServer(app.app, limits, app.fields, app.methods, polling.touch if polling else None)
        self._servers: list[asyncio.AbstractServer] = []
        self._grpcio: GrpcioServer | None = None

    async def run(self) -> None:
        """Serves until the supervisor ends it."""
        self._loop.add_reader(self._control.fileno(), self._hear)
        await self._is_introduced.wait()
        await self._listen()
        self._tell(encode(GatewayReady(self._index)))
        ticks = asyncio.create_task(self._tick())
        await self._done.wait()
        ticks.cancel()

    async def _listen(self) -> None:
        """On every socket; without libnghttp2, gRPC has its own port, by grpcio."""
        context, options = tls_context(self._options), self._options
        for listener in self._listeners:
            secure = {"ssl": context, "ssl_handshake_timeout": _HANDSHAKE_S} if listener.is_secure else {}
            create: Any = self._loop.create_unix_server if listener.sock.family == socket.AF_UNIX else self._loop.create_server
            self._servers.append(await create(self._http.protocol, sock=listener.sock, backlog=1024, **secure))
        if options.grpc_port and not http2.is_there():
            files = (options.tls_key, options.tls_cert, options.tls_client_ca)
            key, certificate, client_ca = [Path(file).read_bytes() if file else None for file in files]
            credentials = tls(key, certificate, client_ca) if key and certificate else None
            self._grpcio = GrpcioServer(self._http.methods, max_message_bytes=options.max_message_bytes, credentials=credentials)
            await self._grpcio.start([f"{options.host}:{options.grpc_port}"])

    async def _tick(self) -> None:
        """Deadlines of requests twenty times a second, time-outs of connections and memory once."""
        count = 0
        while True:
            await asyncio.sleep(_TICK_S)
            count += 1
            steps = (self._expire, self._http.sweep, self._report, self._malloc.sweep)
            for step in steps if count % _TICKS_PER_SWEEP == 0 else steps[:1]:
                try:
                    step()
                except Exception:  # no descriptor is left, say: the next turn may fare better, and must come
                    logger.exception("the gateway's clock failed inside")

    def _expire(self) -> None:
        """Ends the requests whose time is over."""
        now_ns = time.monotonic_ns()
        for link in list(self._links):
            link.expire(now_ns)
        for call in self._routes.expire():
            call.fail(late(call))

    def _report(self) -> None:
        """Tells the supervisor which models were used, and which hosts hang."""
        before_ns = time.monotonic_ns() - int(2 * _TICK_S * _TICKS_PER_SWEEP * 1e9)
        times = {model.name: model.last_used_ns() for model in self._routes.models.values()}
        used = {model: last_ns / 1e9 for model, last_ns in times.items() if last_ns > before_ns}
        if used:
            self._tell(encode(Used(used)))
        for link in list(self._links):
            if link.is_silent():
                self._tell(encode(Hung(link.host)))

    def _tell(self, frame: bytes) -> None:
        try:
            self._control.send(frame)
            if self._control.has_outbound:
                self._loop.call_later(_TICK_S, self._control.flush)
        except ChannelClosed:
            self._done.set()

    def _hear(self) -> None:
        try:
            frames = self._control.receive_with_fds()
        except ChannelClosed:
            self._done.set()
            self._loop.remove_reader(self._control.fileno())
            return
        for frame in frames:
            self._obey(decode_from_supervisor(frame))

    def _obey(self, message: msgspec.Struct) -> None:
        if isinstance(message, ServableState):
            self._update(message)
        elif isinstance(message, Connect):
            self._connect(message)
        elif isinstance(message, Retire):
            self._retire(message)
        elif isinstance(message, Labels):
            self._routes.models.setdefault(message.model, Model(message.model)).labels = message.labels
        elif isinstance(message, SettingsNow):
            self.settings = message.values
        elif isinstance(message, CollectMetrics):
            self._tell(encode(MetricsReport(message.asker, message.id, self._index, self._metrics.snapshot())))
        elif isinstance(message, MetricsCollected):
            answer = self._questions.pop(message.id, None)
            if answer is not None:
                answer(Collected(message.figures, message.hosts))
        elif isinstance(message, Outcome):
            answer_wish = self._wishes.pop(message.id, None)
            if answer_wish is not None:
                answer_wish(message.error.error() if message.error is not None else None)
        elif isinstance(message, Regions):
            self._memory.update(message.regions)
            self._tell(encode(RegionsKnown(self._index, message.serial)))
            self._is_introduced.set()
        elif isinstance(message, Drain):
            self._drain(message.limit_s)

    def _servable(self, model: str, version: int) -> Servable:
        def make() -> Servable:
            return Servable(model, version, max_waiting=self._options.max_queue)

        return self._routes.servable(model, version, make)

    def _update(self, message: ServableState) -> None:
        servable = self._servable(message.model, message.version)
        servable.is_stateful, servable.has_script, servable.url = message.is_stateful, message.has_script, message.url
        servable.engine, servable.variant = message.engine, message.variant
        servable.signatures = {one.name: signature_of(one) for one in message.signatures}
        servable.batches = frozenset(message.batches)
        state = State(message.state)
        servable.update(state, message.error.error() if message.error else None)
        if state is State.UNLOADING:
            for link in [link for link in self._links if link.servable is servable]:
                link.end_when_idle()
        elif state is State.END and message.error is None:
            self._routes.remove(message.model, message.version)
            self._metrics.forget(message.model, message.version)

    def _connect(self, message: Connect) -> None:
        fds = self._control.fds
        frames = FrameSocket(socket.socket(fileno=fds.popleft()))
        arenas = Arena(fds.popleft()), ArenaView(fds.popleft())
        servable = self._servable(message.model, message.version)
        link = HostLink(
            self._loop,
            servable,
            message.host,
            frames,
            arenas,
            max_rows=message.max_rows,
            max_load=self._options.max_queue,
            timeout_s=self._options.request_timeout_s,
            lost=self._links.discard,
            drained=lambda link: self._tell(encode(Idle(self._index, link.host))),
        )
        self._links.add(link)
        servable.attach(link)

    def _retire(self, message: Retire) -> None:
        """Others have taken a host's place: it finishes what it has."""
        for link in [link for link in self._links if link.host == message.host]:
            link.servable.detach(link, [])
            link.end_when_idle()

    def load(self, model: str, url: str, answer: Callable[[PenstockError | None], None]) -> None:
        """Has the model in the folder `url` served; answered when it is, or with why it is not."""
        self._wish(lambda number: LoadModel(self._index, number, model, url), answer)

    def unload(self, model: str, answer: Callable[[PenstockError | None], None]) -> None:
        """Has a model taken out; answered when its memory is back."""
        self._wish(lambda number: UnloadModel(self._index, number, model), answer)

    def want(self, model: str, answer: Callable[[PenstockError | None], None]) -> None:
        """Has a model loaded that is loaded only when it is asked for; answered when it answers requests."""
        self._wish(lambda number: CallFor(self._index, number, model), answer)

    def register_region(self, region: Region, answer: Callable[[PenstockError | None], None]) -> None:
        """Has all gateways know of shared memory; answered when they do."""
        self._wish(lambda number: RegisterRegion(self._index, number, region), answer)

    def unregister_region(self, name: str, answer: Callable[[PenstockError | None], None]) -> None:
        """Has all gateways forget a region, or all where `name` is empty."""
        self._wish(lambda number: UnregisterRegion(self._index, number, name), answer)

    def reload_config(self, config: bytes, answer: Callable[[PenstockError | None], None]) -> None:
        """Has the models of a serialized ModelServerConfig served in place of the present ones."""
        self._wish(lambda number: ReloadConfig(self._index, number, config), answer)

    def change_settings(self, values: Mapping[str, int | float | str], answer: Callable[[PenstockError | None], None]) -> None:
        """Has all models run with these options, and those that are not named as they are."""
        self._wish(lambda number: ChangeSettings(self._index, number, dict(values)), answer)

    def _wish(self, message: Callable[[int], msgspec.Struct], answer: Callable[[PenstockError | None], None]) -> None:
        if len(self._wishes) >= _MAX_WISHES:
            answer(Unavailable("Too many requests wait for models to be loaded or unloaded."))
            return
        self._next_question += 1
        self._wishes[self._next_question] = answer
        self._tell(encode(message(self._next_question)))

    def collect(self, answer: Callable[[Collected], None]) -> None:
        """Asks for the figures of all gateways; where they do not come in time, this gateway's own are the answer."""
        self._next_question += 1
        question = self._next_question
        self._questions[question] = answer
        self._tell(encode(CollectMetrics(self._index, question)))

        def give_up() -> None:
            if self._questions.pop(question, None) is not None:
                answer(Collected([self._metrics.snapshot()], []))

        self._loop.call_later(_COLLECT_TIMEOUT_S, give_up)

    def _drain(self, limit_s: float) -> None:
        self._stop()
        for server in self._servers:
            server.close()
        if self._grpcio is not None:
            self._ending = self._loop.create_task(self._grpcio.stop(limit_s))
        self._http.drain()
        until = self._loop.time() + limit_s

        def leave_when_done() -> None:
            if self._http.is_done or self._loop.time() >= until:
                self._done.set()
            else:
                self._loop.call_later(0.02, leave_when_done)

        leave_when_done()


def run_gateway(
    index: int, listeners: Sequence[Listener], control: socket.socket, options: ServeOptions, make_app: MakeApp
) -> None:
    """The life of a gateway after the fork."""
    setproctitle(f"penstock: gateway {index}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log.configure(options.log_format)

    async def serve() -> None:
        await Gateway(index, listeners, FrameSocket(control), options, make_app).run()

    uvloop.run(serve())
    os._exit(0)
