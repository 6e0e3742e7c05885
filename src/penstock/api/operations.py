"""What people and monitoring ask of the server itself: the page at /, /openapi.json, /metrics."""

from __future__ import annotations

import orjson

from penstock.api.openapi import openapi
from penstock.api.page import page
from penstock.api.router import Handler
from penstock.observe.metrics import Collect, Collected
from penstock.observe.model_server_metrics import model_server_exposition
from penstock.serving.routes import Routes
from penstock.wire.request import Request, Response

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Operations:
    """/, /openapi.json and /metrics. `collect` gets the figures of all gateways.

    At `monitoring_path`, if there is one, the same metrics follow those with TensorFlow Serving's names. The flags say
    what clients may do besides.
    """

    def __init__(
        self,
        routes: Routes,
        collect: Collect,
        monitoring_path: str = "",
        *,
        loads_models: bool = False,
        changes_settings: bool = False,
    ) -> None:
        self._routes = routes
        self._collect = collect
        self._monitoring_path = monitoring_path
        self._loads_models = loads_models
        self._changes_settings = changes_settings

    def match(self, method: str, path: str) -> Handler | None:
        if method != "GET":
            return None
        if self._monitoring_path and path == self._monitoring_path:
            return self._model_server_metrics
        return {"/": self._page, "/openapi.json": self._openapi, "/metrics": self._metrics}.get(path)

    def _page(self, request: Request) -> None:
        host = request.head.field(b"host") or "127.0.0.1:8080"
        request.answer(Response(200, page(self._routes, host).encode(), "text/html; charset=utf-8"))

    def _openapi(self, request: Request) -> None:
        document = openapi(self._routes, loads_models=self._loads_models, changes_settings=self._changes_settings)
        request.answer(Response(200, orjson.dumps(document, option=orjson.OPT_INDENT_2)))

    def _metrics(self, request: Request) -> None:
        self._collect(lambda collected: request.answer(Response(200, self._exposition(collected), _METRICS_TYPE)))

    def _model_server_metrics(self, request: Request) -> None:
        def answer(collected: Collected) -> None:
            theirs = model_server_exposition(collected.snapshots)
            request.answer(Response(200, theirs + self._exposition(collected), _METRICS_TYPE))

        self._collect(answer)

    def _exposition(self, collected: Collected) -> bytes:
        from penstock.observe.exposition import HostFigures, ServableFigures, exposition  # loads Prometheus' client library

        states = [
            ServableFigures(servable.model, servable.version, servable.state.value, servable.engine, servable.variant)
            for model in self._routes.models.values()
            for servable in model.versions.values()
        ]
        return exposition(collected.snapshots, [HostFigures(*restarts) for restarts in collected.restarts], states)
