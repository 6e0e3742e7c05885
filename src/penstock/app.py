"""The composition root: what is wired to what.

connection → HttpServer → Router → one of the APIs → Inference → Servable → HostLink ═ frame ═ Host → Batcher → engine
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from penstock.api.async_invocations import AsyncInvocations
from penstock.api.grpc_health import Health
from penstock.api.inference import Inference
from penstock.api.multi_model import MultiModel
from penstock.api.operations import Operations
from penstock.api.router import CORS_FIELDS, Api, Router
from penstock.api.sagemaker import SageMaker
from penstock.api.sagemaker_runtime import SageMakerRuntime
from penstock.api.tfs_rest import TfsRest
from penstock.config import ServeOptions
from penstock.errors import UsageError
from penstock.models.sources import Source
from penstock.models.version import Version
from penstock.process.gateway import GatewayApp, GatewayContext
from penstock.process.listening import listeners
from penstock.process.supervisor import StartFailed, Supervisor
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.wire.grpc import Service, join_methods


def make_app(default_model: str, is_multi_model: bool, context: GatewayContext) -> GatewayApp:
    """The APIs of a gateway: those of HTTP behind one router, and the methods of gRPC."""
    options = context.options
    inference = Inference(
        context.routes,
        context.metrics,
        timeout_s=options.request_timeout_s,
        server_timing=options.server_timing,
        administration=context.administration if options.model_store else None,
    )
    administration = context.administration
    sagemaker = SageMaker(inference, default_model)
    runtime = SageMakerRuntime(
        context.routes,
        administration,
        sagemaker.invoke,
        has_default=bool(default_model),
        max_wait_s=options.request_timeout_s,
    )
    async_root = Path(options.async_root) if options.async_root else None
    apis: list[Api] = [
        TfsRest(inference),
        sagemaker,
        runtime,
        AsyncInvocations(runtime.invoke, allowed_root=async_root, max_input_bytes=options.max_body_bytes),
        Operations(context.routes, context.collect),
    ]
    if is_multi_model or options.admin_api:
        apis.append(MultiModel(context.routes, administration, sagemaker.invoke, context.routes.url))
    router = Router(apis, allows_cors=options.cors)
    services: list[Service] = []
    services.append(Health(context.routes, [name for service in services for name in service.names], default_model))
    return GatewayApp(router.dispatch, join_methods(services), CORS_FIELDS if options.cors else b"")


def serve(
    options: ServeOptions,
    source: Source,
    *,
    session_config: bytes,
    default_model: str,
    engine: tuple[Lifeline, ZygoteProcess],
    ready: Callable[[str, int, Sequence[Version]], None],
    may_be_empty: bool = False,
    is_multi_model: bool = False,
) -> None:
    """Serves what `source` wants until told to stop. `ready` gets the address and the versions. Raises StartFailed."""
    try:
        listening = listeners(options)
    except UsageError as error:
        raise StartFailed(str(error)) from None
    port = listening[0][0].sock.getsockname()[1]
    supervisor = Supervisor(
        options,
        source,
        listening,
        partial(make_app, default_model, is_multi_model),
        session_config,
        engine,
        lambda versions: ready(options.host, port, versions),
        may_be_empty=may_be_empty,
    )
    supervisor.run()
