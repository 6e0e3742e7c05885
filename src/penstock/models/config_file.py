"""TensorFlow Serving's file of models: a ModelServerConfig in protobuf's text format (contract §4).

Guarantees: what it refuses is refused with its words, where it has any; one mistake refuses the whole file. Differs on purpose
in two things: a logging_config is accepted, although nothing is logged, and only folders are served, not object stores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from penstock.errors import UsageError
from penstock.savedmodel.protos import POOL, message_class

_PACKAGE = "penstock.savedmodel.serving"
_PLATFORM = "tensorflow"
_TYPE_TENSORFLOW = 1
_FILE_SCHEME = "file://"

ModelServerConfig = message_class(f"{_PACKAGE}.ModelServerConfig")


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """A model of the file. `policy` is written as the option --versions is; `has_logging` tells of a logging_config."""

    name: str
    base_path: Path
    policy: str
    labels: dict[str, int]
    has_logging: bool = False


def parse_config_file(text: str) -> list[ConfiguredModel] | None:
    """The models of a file's content; None where it has no list of models at all. Raises UsageError."""
    try:
        config = text_format.Parse(text, ModelServerConfig(), descriptor_pool=POOL)
    except (text_format.ParseError, ValueError) as error:
        raise UsageError(_parse_failure(str(error))) from error
    return configured_models(config)


def configured_models(config: Any) -> list[ConfiguredModel] | None:
    """The models of a ModelServerConfig, in its order; None where it has no list. Raises UsageError."""
    chosen = config.WhichOneof("config")
    if chosen is None:
        return None
    if chosen != "model_config_list":
        raise UsageError(f"{chosen} is not supported: expected model_config_list")
    configs = config.model_config_list.config
    _check_names(one.name for one in configs)
    return [_configured_model(one) for one in configs]


def _parse_failure(reason: str) -> str:
    reason = reason.replace(f"{_PACKAGE}.", "tensorflow.serving.").replace(" : ", ": ", 1)
    return f"Error parsing text-format tensorflow.serving.ModelServerConfig: {reason}"


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise UsageError("a model of the config list has no name: expected name: '...'")
        if name in seen:
            raise UsageError(f"Illegal to list model {name} multiple times in config list")
        seen.add(name)


def _configured_model(config: Any) -> ConfiguredModel:
    name = config.name
    _check_platform(name, config.model_platform, config.model_type)
    policy = _policy(name, config.model_version_policy)
    labels = dict(sorted(config.version_labels.items()))
    return ConfiguredModel(name, _base_path(name, config.base_path), policy, labels, config.HasField("logging_config"))


def _check_platform(name: str, platform: str, model_type: int) -> None:
    if model_type == _TYPE_TENSORFLOW and not platform:
        return
    if not platform and not model_type:
        raise UsageError(f"Model {name} has no platform: expected model_platform: '{_PLATFORM}'")
    platform = platform or f"(model_type {model_type})"
    if platform != _PLATFORM:
        raise UsageError(f"Model {name} requests unsupported platform {platform}")


def _base_path(name: str, text: str) -> Path:
    path = text.removeprefix(_FILE_SCHEME)
    if path.startswith("/"):
        return Path(path)
    if "://" in text:
        raise UsageError(f"Model {name}: base_path {text} is not a folder of this machine; expected an absolute path")
    raise UsageError(f"Expected model {name} to have an absolute path or URI; got base_path()={text}")


def _policy(name: str, policy: Any) -> str:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return "all"
    if choice != "specific":
        return f"latest:{max(1, policy.latest.num_versions)}"
    versions = sorted(set(policy.specific.versions))
    if not versions or versions[0] < 0:
        found = versions[0] if versions else "none"
        raise UsageError(f"Model {name}: the specific versions of its policy must be 0 or more, one at least; found {found}")
    return ",".join(map(str, versions))
