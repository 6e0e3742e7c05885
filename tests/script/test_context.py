"""The context is the container's namedtuple, and a little more."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from penstock.script.context import Context, grpc_channel

NAMES = (
    *("model_name", "model_version", "method", "rest_uri", "grpc_port", "channel", "custom_attributes"),
    *("request_content_type", "accept_header", "content_length", "timeout"),
)


def make(channel: object = "channel") -> Context:
    return Context(
        model_name="half",
        model_version=None,
        method="classify",
        rest_uri="http://127.0.0.1:8080/v1/models/half:classify",
        grpc_port="9000",
        open_channel=lambda: channel,
        custom_attributes="tfs-method=classify",
        request_content_type="text/csv",
        accept_header="application/json",
        content_length=12,
        timeout=60.0,
        deadline=time.monotonic() + 5,
        request_id="abc",
    )


def test_it_has_the_eleven_fields_in_the_containers_order() -> None:
    context = make()
    assert context._fields == NAMES
    assert len(context) == 11
    assert tuple(context) == tuple(getattr(context, name) for name in NAMES)
    assert [context[index] for index in range(11)] == list(context)
    assert context[-1] == 60.0
    assert context[:2] == ("half", None)
    with pytest.raises(IndexError):
        context[11]


def test_it_can_be_unpacked() -> None:
    name, version, method, uri, port, channel, attributes, content_type, accept, length, timeout = make()
    assert (name, version, method, port, channel) == ("half", None, "classify", "9000", "channel")
    assert (uri[-9:], attributes[:4], content_type, accept, length, timeout) == (
        *(":classify", "tfs-", "text/csv", "application/json", 12, 60.0),
    )


def test_it_becomes_a_dict_and_a_changed_copy() -> None:
    context = make()
    assert list(context._asdict()) == list(NAMES)
    changed = context._replace(model_name="other", channel=None)
    assert (changed.model_name, changed.channel, changed.method) == ("other", None, "classify")
    assert changed.request_id == "abc"
    assert context.model_name == "half"
    with pytest.raises(TypeError):
        context._replace(colour="red")


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().model_name = "x"  # type: ignore[misc]


def test_there_is_a_deadline_and_a_request_id_beside_the_fields() -> None:
    context = make()
    assert 0 < context.deadline - time.monotonic() <= 5
    assert context.request_id == "abc"


def test_a_channel_is_made_when_it_is_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, dict[str, int]]] = []

    class FakeGrpc:
        @staticmethod
        def insecure_channel(target: str, options: Sequence[tuple[str, int]]) -> object:
            made.append((target, dict(options)))
            return made

    monkeypatch.setattr(importlib, "import_module", lambda _: FakeGrpc)
    context = dataclasses.replace(make(), open_channel=partial(grpc_channel, "127.0.0.1:65001"))
    assert "channel" not in repr(context)
    assert made == []
    assert context.channel is context[5]
    ((target, options),) = made
    assert target == "127.0.0.1:65001"
    assert options["grpc.max_receive_message_length"] == options["grpc.max_send_message_length"] == -1


def test_a_real_channel_is_grpcs_own() -> None:
    grpc = pytest.importorskip("grpc")
    channel = grpc_channel("127.0.0.1:65002")
    assert isinstance(channel, grpc.Channel)
    channel.close()


def test_without_grpcio_or_without_grpc_the_use_of_the_channel_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    for target, text in (
        ("127.0.0.1:65003", "without grpcio: name grpcio in the script's requirements.txt"),
        ("", "--unix-socket"),
    ):
        context = dataclasses.replace(make(), open_channel=partial(grpc_channel, target))
        assert not context.channel
        assert list(context)[5] is context._asdict()["channel"]
        assert copy.copy(context.channel) is not None
        with pytest.raises(RuntimeError, match=text):
            context.channel.unary_unary("/m")
