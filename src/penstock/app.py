"""The composition root: what is wired to what.

connection → HttpServer → Router → one of the APIs → Inference → Servable → HostLink ═ frame ═ Host → Batcher → engine
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from penstock.api.async_invocations import AsyncInvocations
from penstock.api.grpc_health import Health
from penstock.api.grpc_reflection import Reflection
from penstock.api.inference import Inference
from penstock.api.multi_model import MultiModel
from penstock.api.oip_grpc import OipGrpc
from penstock.api.oip_models import OipModels
from penstock.api.oip_rest import OipRest
from penstock.api.oip_shared_memory import SharedMemoryApi
from penstock.api.operations import Operations
from penstock.api.router import CORS_FIELDS, Api, Router
from penstock.api.sagemaker import SageMaker
from penstock.api.sagemaker_runtime import SageMakerRuntime
from penstock.api.settings import Settings
from penstock.api.tfs_grpc import PredictionService
from penstock.api.tfs_model_service import ModelService
from penstock.api.tfs_profiler import ProfilerService
from penstock.api.tfs_rest import TfsRest
from penstock.config import ServeOptions
from penstock.errors import UsageError
from penstock.models.sources import Source
from penstock.models.version import Version
from penstock.observe.log import get_logger
from penstock.process.gateway import GatewayApp, GatewayContext
from penstock.process.listening import listeners, without_http2
from penstock.process.supervisor import StartFailed, Supervisor
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.wire.grpc import Service, join_methods

log = get_logger("app")


def make_app(default_model: str, is_multi_model: bool, context: GatewayContext) -> GatewayApp:
    """The APIs of a gateway: those of HTTP behind one router, and the services of gRPC."""
    options = context.options
    inference = Inference(
        context.routes,
        context.metrics,
        timeout_s=options.request_timeout_s,
        server_timing=options.server_timing,
        administration=context.administration if options.model_store else None,
    )
    rest, grpc = _open_inference(inference, context)
    router = Router([rest, *_apis(inference, default_model, is_multi_model, context)], allows_cors=options.cors)
    services = _services([grpc], inference, context)
    health = Health(context.routes, [name for service in services for name in service.names], default_model)
    methods = join_methods([*services, health, Reflection([name for service in [*services, health] for name in service.names])])
    return GatewayApp(router.dispatch, methods, health.stop, CORS_FIELDS if options.cors else b"")


def _apis(inference: Inference, default_model: str, is_multi_model: bool, context: GatewayContext) -> list[Api]:
    """What HTTP can ask for."""
    options, routes, administration = context.options, context.routes, context.administration
    sagemaker = SageMaker(inference, default_model)
    runtime = SageMakerRuntime(
        routes, administration, sagemaker.invoke, has_default=bool(default_model), max_wait_s=options.request_timeout_s
    )
    loads_models = is_multi_model or options.admin_api
    async_root = Path(options.async_root) if options.async_root else None
    apis: list[Api] = [
        TfsRest(inference),
        sagemaker,
        runtime,
        AsyncInvocations(runtime.invoke, allowed_root=async_root, max_input_bytes=options.max_body_bytes),
        Operations(
            routes,
            context.collect,
            options.monitoring_path,
            loads_models=loads_models,
            changes_settings=options.admin_api,
        ),
    ]
    if loads_models:
        apis.append(MultiModel(routes, administration, sagemaker.invoke, routes.url))
    if options.admin_api:
        apis.append(Settings(context.administration))
    return apis


def _services(others: Sequence[Service], inference: Inference, context: GatewayContext) -> list[Service]:
    """What gRPC can call: `others`, and the rest."""
    options, routes = context.options, context.routes
    return [
        *others,
        PredictionService(inference, as_content=options.grpc_tensor_content, checks_method_name=options.checks_method_names),
        ModelService(routes, context.administration, reloads=options.admin_api or options.reload_requests),
        ProfilerService(context.collect),
    ]


def _open_inference(inference: Inference, context: GatewayContext) -> tuple[OipRest, OipGrpc]:
    """The Open Inference Protocol, over both."""
    options, administration = context.options, context.administration
    models = OipModels(
        context.routes,
        administration,
        loads=bool(options.model_store),
        loads_paths=options.admin_api,
        max_batch_size=options.max_batch_size,
    )
    memory = SharedMemoryApi(context.shared_memory, administration if options.shared_memory else None)
    return OipRest(inference, models, memory, context.collect), OipGrpc(inference, models, memory, context.collect)


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
        note = without_http2(options)
        listening = listeners(options)
    except UsageError as error:
        raise StartFailed(str(error)) from None
    if note:
        log.warning(note)
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
    try:
        supervisor.run()
    finally:
        if options.unix_socket:
            Path(options.unix_socket).unlink(missing_ok=True)
