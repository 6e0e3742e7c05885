"""A list of models that a client sends in place of the present one (contract §2.2, §4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from google.protobuf.message import DecodeError

from penstock.errors import FailedPrecondition, InvalidArgument, NotFound, PenstockError, Unknown, UsageError
from penstock.models.config_file import ConfiguredModel, ModelServerConfig, configured_models
from penstock.models.desired import Desired
from penstock.models.manager import Answer, Manager


def decode_config(config: bytes) -> list[ConfiguredModel]:
    """The models of a serialized ModelServerConfig. Raises InvalidArgument, with TensorFlow Serving's words where it has any."""
    try:
        models = configured_models(ModelServerConfig.FromString(config))
    except DecodeError:
        raise InvalidArgument("The message is malformed: its config is no ModelServerConfig.") from None
    except UsageError as error:
        raise InvalidArgument(str(error)) from None
    if models is None:
        raise not_reloadable()
    return models


def not_reloadable() -> FailedPrecondition:
    """The error where one of the two is no list of models."""
    return FailedPrecondition(
        "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
    )


def await_models(models: Sequence[Desired], manager: Manager, answer: Answer) -> None:
    """Calls `answer` when all `models`, which the manager wants, are available, or when it is known which cannot be loaded."""
    errors: dict[str, PenstockError | None] = {}

    def settled(model: str, error: PenstockError | None) -> None:
        errors[model] = error
        if len(errors) == len(models):
            answer(_failure(errors, manager))

    if not models:
        answer(None)
    for one in models:
        if one.versions:
            manager.call_for(one.model, partial(settled, one.model))
        else:
            settled(one.model, NotFound(f"{one.folder} has no version to serve"))


def _failure(errors: dict[str, PenstockError | None], manager: Manager) -> Unknown | None:
    numbers = {model: number for (model, number), version in manager.versions.items() if version.error is not None}
    failed = [(model, error.message) for model, error in errors.items() if error is not None]
    if not failed:
        return None
    told = [f"{{name: {model} version: {numbers.get(model, 0)}}} due to error: {message}" for model, message in failed]
    return Unknown(f"{len(failed)} servable(s) did not become available: {{{', '.join(told)}, }}")
