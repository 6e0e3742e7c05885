"""The composition root: what is wired to what.

connection → HttpServer → Router → one of the APIs → Inference → Servable → HostLink ═ frame ═ Host → Batcher → engine
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from penstock.api.inference import Inference
from penstock.api.operations import Operations
from penstock.api.router import CORS_FIELDS, Router
from penstock.api.sagemaker import SageMaker
from penstock.api.tfs_rest import TfsRest
from penstock.config import ServeOptions
from penstock.process.gateway import GatewayContext, listeners
from penstock.process.supervised import ServedVersion
from penstock.process.supervisor import StartFailed, Supervisor
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.wire.request import App


def make_app(default_model: str, context: GatewayContext) -> tuple[App, bytes]:
    """The APIs of a gateway behind one router, and the header lines of every answer."""
    options = context.options
    inference = Inference(
        context.routes,
        context.metrics,
        timeout_s=options.request_timeout_s,
        server_timing=options.server_timing,
    )
    router = Router(
        (
            TfsRest(inference),
            SageMaker(inference, default_model),
            Operations(context.routes, context.collect),
        ),
        allows_cors=options.cors,
    )
    return router.dispatch, CORS_FIELDS if options.cors else b""


def serve(
    options: ServeOptions,
    served: Sequence[ServedVersion],
    *,
    labels: dict[str, dict[str, int]],
    session_config: bytes,
    default_model: str,
    engine: tuple[Lifeline, ZygoteProcess],
    ready: Callable[[str, int, Sequence[ServedVersion]], None],
) -> None:
    """Serves until told to stop. `ready` gets the address and the versions. Raises StartFailed."""
    try:
        listening = listeners(options.host, options.port, options.gateway_count)
    except OSError as error:
        raise StartFailed(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}; choose another with --port"
        ) from None
    port = listening[0].getsockname()[1]
    supervisor = Supervisor(
        options,
        served,
        labels,
        listening,
        partial(make_app, default_model),
        session_config,
        engine,
        lambda versions: ready(options.host, port, versions),
    )
    supervisor.run()
