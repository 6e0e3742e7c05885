"""`penstock serve`: finds the models, serves them, says when they answer."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from penstock.api.page import curl
from penstock.app import serve as run
from penstock.config import ServeOptions
from penstock.errors import NotFound, PenstockError, UsageError
from penstock.observe import log
from penstock.process.messages import error_message, signature_of
from penstock.process.supervised import ServedVersion
from penstock.process.supervisor import StartFailed
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.sagemaker_settings import SageMakerSettings
from penstock.savedmodel.layout import ModelFolder, find_models, select_versions
from penstock.savedmodel.locate import locate
from penstock.savedmodel.protos import parse_config
from penstock.savedmodel.reader import read_saved_model
from penstock.serving.routes import State

logger = log.get_logger("serve")

StartedEngine = tuple[Lifeline, ZygoteProcess]


def serve(path: str | None, models: Sequence[str], name: str | None, options: ServeOptions, engine: StartedEngine) -> None:
    """`penstock serve`. Raises UsageError and PenstockError for what is wrong with paths and models."""
    log.configure(options.log_format)
    folders = locate_all(path, models, name)
    run_server(options, folders, folders[0].name, engine)


def serve_sagemaker(root: str, options: ServeOptions, settings: SageMakerSettings, engine: StartedEngine) -> None:
    """`penstock sagemaker serve`. Raises UsageError and PenstockError for layouts and models that are wrong."""
    log.configure(options.log_format, settings.log_level or "info")
    ignored = list(settings.accepted_without_effect)
    if ignored:
        logger.info("accepted without effect: %s", ", ".join(ignored))
    folders = find_models(Path(root))
    if (Path(root) / "code" / "inference.py").exists():
        logger.warning("%s is not run: this version has no scripts, /invocations answers without it", "code/inference.py")
    default = settings.default_model_name or folders[0].name
    if default not in {folder.name for folder in folders}:
        names = ", ".join(folder.name for folder in folders)
        raise UsageError(f"SAGEMAKER_TFS_DEFAULT_MODEL_NAME: there is no model {default}; there are: {names}")
    run_server(options, folders, default, engine)


def run_server(options: ServeOptions, folders: Sequence[ModelFolder], default_model: str, engine: StartedEngine) -> None:
    """Serves `folders` until told to stop; ends the program when it cannot start."""
    session_config = read_session_config(options.session_config)
    served = _served_versions(options, folders)
    try:
        run(
            options,
            served,
            labels=_labels(options.label, folders),
            session_config=session_config,
            default_model=default_model,
            engine=engine,
            ready=lambda host, port, versions: _announce(options, host, port, versions),
        )
    except StartFailed as error:
        click.echo(f"penstock: error: {error}", err=True)
        sys.exit(1)


def locate_all(path: str | None, models: Sequence[str], name: str | None) -> list[ModelFolder]:
    """The models that PATH and --model name. Raises UsageError."""
    named: list[tuple[str | None, str]] = [(name, path)] if path else []
    for model in models:
        key, separator, value = model.partition("=")
        if not separator or not key or not value:
            raise UsageError(f"--model {model}: expected NAME=PATH")
        named.append((key, value))
    if not named:
        raise UsageError("nothing to serve: give the PATH of a model, or --model NAME=PATH")
    folders = [folder for key, value in named for folder in locate(Path(value), key)]
    names = [folder.name for folder in folders]
    twice = {one for one in names if names.count(one) > 1}
    if twice:
        raise UsageError(f"two models have the name {min(twice)}: give them others with --model NAME=PATH")
    return folders


def read_session_config(file: str) -> bytes:
    """A serialized ConfigProto from a text file, empty where none is given. Raises UsageError."""
    if not file:
        return b""
    try:
        text = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--session-config {file}: {error}") from None
    return parse_config(text)


def _served_versions(options: ServeOptions, folders: Iterable[ModelFolder]) -> list[ServedVersion]:
    """The versions to serve; one that cannot be read is kept with its error, so that others are served without it."""
    served: list[ServedVersion] = []
    for folder in folders:
        for version in select_versions(folder.versions, options.versions):
            path = folder.versions[version]
            try:
                is_stateful = read_saved_model(path, tuple(options.tags.split(","))).is_stateful
            except PenstockError as error:
                one = ServedVersion(folder.name, version, path, False, state=State.END, error=error_message(error))
            else:
                one = ServedVersion(folder.name, version, path, is_stateful)
            served.append(one)
    if not served:
        raise NotFound(f"no model has a version that --versions {options.versions} asks for")
    if all(one.state is State.END for one in served):
        raise NotFound(served[0].failure)
    return served


def _labels(labels: Sequence[str], folders: Sequence[ModelFolder]) -> dict[str, dict[str, int]]:
    """`[MODEL:]LABEL=VERSION` by model. Raises UsageError."""
    found: dict[str, dict[str, int]] = {}
    for text in labels:
        left, separator, number = text.partition("=")
        model, _, label = left.rpartition(":")
        model = model or folders[0].name
        folder = next((one for one in folders if one.name == model), None)
        if not separator or not label or not number.isdigit():
            raise UsageError(f"--label {text}: expected [MODEL:]LABEL=VERSION")
        if folder is None or int(number) not in folder.versions:
            raise UsageError(f"--label {text}: there is no version {number} of model {model}")
        found.setdefault(model, {})[label] = int(number)
    return found


def _announce(options: ServeOptions, host: str, port: int, versions: Sequence[ServedVersion]) -> None:
    """The line that says that requests are answered, and a command to try."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    address = f"{f'[{shown}]' if ':' in shown else shown}:{port}"
    first = next((one for one in versions if one.state is State.AVAILABLE), None)
    signatures = [signature_of(message) for message in first.signatures] if first else []
    signature = next((one for one in signatures if one.name == "serving_default"), signatures[0] if signatures else None)
    if options.log_format == "json":
        logger.info("ready on http://%s", address)
        return
    click.echo(f"penstock: ready on http://{address}")
    if first is not None and signature is not None:
        click.echo(f"try: {curl(first.model, signature, address)}")
