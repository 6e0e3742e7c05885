"""`penstock serve`: finds the models, serves them, says when they answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from penstock.api.page import curl
from penstock.app import serve as run
from penstock.cli.sagemaker import script_to_copy
from penstock.config import ServeOptions, cache_folder
from penstock.errors import NotFound, UsageError
from penstock.models.desired import Desired
from penstock.models.fixed_source import FixedSource
from penstock.models.sources import CombinedSource, ConfigFileSource, FolderSource, Source, StoreSource
from penstock.models.version import Version
from penstock.observe import log
from penstock.process.supervisor import StartFailed
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.sagemaker_settings import SageMakerSettings
from penstock.savedmodel.layout import ModelFolder, find_models, select_versions
from penstock.savedmodel.locate import locate
from penstock.savedmodel.protos import parse_config
from penstock.script.folder import require_script
from penstock.serving.routes import State

logger = log.get_logger("serve")

StartedEngine = tuple[Lifeline, ZygoteProcess]


def serve(path: str | None, models: Sequence[str], name: str | None, options: ServeOptions, engine: StartedEngine) -> None:
    """`penstock serve`. Raises UsageError and PenstockError for what is wrong with paths and models."""
    log.configure(options.log_format)
    is_dynamic = bool(options.model_store or options.model_config_file or options.admin_api)
    folders = [] if is_dynamic and not path and not models else locate_all(path, models, name)
    labels = _labels(options.label, folders)
    _check_versions(options, folders)
    if options.script:
        require_script(Path(options.script))
    given = [value for value in (path, *(model.partition("=")[2] for model in models)) if value]
    fixed = {os.path.abspath(value) for value in given}
    sources = [_source_of(folder, options, labels.get(folder.name, {}), fixed) for folder in folders]
    if options.model_config_file:
        sources.append(ConfigFileSource(Path(options.model_config_file), options.poll_s > 0))
    if options.model_store:
        sources.append(StoreSource(Path(options.model_store)))
    default = folders[0].name if folders else ""
    run_server(options, CombinedSource(sources), default, engine, may_be_empty=is_dynamic)


def serve_sagemaker(root: str, options: ServeOptions, settings: SageMakerSettings, engine: StartedEngine) -> None:
    """`penstock sagemaker serve`. Raises UsageError and PenstockError for layouts and models that are wrong."""
    log.configure(options.log_format, settings.log_level or "info")
    ignored = list(settings.accepted_without_effect)
    if ignored:
        logger.info("accepted without effect: %s", ", ".join(ignored))
    if to_do := script_to_copy(options, settings):
        logger.warning("%s", to_do)
    if settings.multi_model:
        run_server(options, FixedSource([]), "", engine, may_be_empty=True, is_multi_model=True)
        return
    folders = find_models(Path(root))
    default = settings.default_model_name or folders[0].name
    if default not in {folder.name for folder in folders}:
        names = ", ".join(folder.name for folder in folders)
        raise UsageError(f"SAGEMAKER_TFS_DEFAULT_MODEL_NAME: there is no model {default}; there are: {names}")
    _check_versions(options, folders)
    top = Path(os.path.abspath(root))
    run_server(options, FixedSource([_desired(folder, options, {}, top) for folder in folders]), default, engine)


def run_server(
    options: ServeOptions,
    source: Source,
    default_model: str,
    engine: StartedEngine,
    *,
    may_be_empty: bool = False,
    is_multi_model: bool = False,
) -> None:
    """Serves what `source` wants until told to stop; ends the program when it cannot start."""
    session_config = read_session_config(options.session_config)
    try:
        run(
            options,
            source,
            session_config=session_config,
            default_model=default_model,
            engine=engine,
            ready=lambda host, port, versions: _announce(options, host, port, versions),
            may_be_empty=may_be_empty,
            is_multi_model=is_multi_model,
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


def _check_versions(options: ServeOptions, folders: Sequence[ModelFolder]) -> None:
    """Raises NotFound where there are models and none has a version that is asked for."""
    if folders and not any(select_versions(folder.versions, options.versions) for folder in folders):
        raise NotFound(f"no model has a version that --versions {options.versions} asks for")


def _source_of(folder: ModelFolder, options: ServeOptions, labels: dict[str, int], given: set[str]) -> Source:
    """A model's folder is looked at again and again; a version that was `given`, and what was unpacked or exported, is not."""
    is_given = any(str(path) in given for path in folder.versions.values())
    if options.poll_s and not is_given and cache_folder() not in folder.path.parents:
        return FolderSource(folder.name, folder.path, options.versions, labels, _root(folder, given))
    return FixedSource([_desired(folder, options, labels, _root(folder, given))])


def _root(folder: ModelFolder, given: set[str]) -> Path:
    """Where the model's files begin, among them perhaps `code`: at the path that was given, or at the top of its archive."""
    unpacked = cache_folder() / "unpacked"
    if unpacked in folder.path.parents:
        return unpacked / folder.path.relative_to(unpacked).parts[0]
    return next((path for path in folder.path.parents if str(path) in given), folder.path)


def _desired(folder: ModelFolder, options: ServeOptions, labels: dict[str, int], root: Path) -> Desired:
    chosen = select_versions(folder.versions, options.versions)
    return Desired(folder.name, {version: folder.versions[version] for version in chosen}, labels, root)


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


def _announce(options: ServeOptions, host: str, port: int, versions: Sequence[Version]) -> None:
    """The line that says that requests are answered, and a command to try."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    address = f"{f'[{shown}]' if ':' in shown else shown}:{port}"
    first = next((one for one in versions if one.state is State.AVAILABLE), None)
    signatures = list(first.signatures.values()) if first else []
    signature = next((one for one in signatures if one.name == "serving_default"), signatures[0] if signatures else None)
    scheme = "https" if options.tls_cert and not options.tls_grpc_only else "http"
    if options.log_format == "json":
        logger.info("ready on %s://%s", scheme, address)
        return
    click.echo(f"penstock: ready on {scheme}://{address}")
    if first is not None and signature is not None:
        click.echo(f"try: {curl(first.model, signature, address, scheme)}")
