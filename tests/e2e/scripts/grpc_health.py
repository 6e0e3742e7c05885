"""Asks the health service through the channel, without stubs; with the body `port` it tells the port of gRPC instead."""

from typing import Any


def handler(data: Any, context: Any) -> Any:
    if data.read() == b"port":
        return context.grpc_port, "text/plain"
    check = context.channel.unary_unary("/grpc.health.v1.Health/Check", lambda data: data, lambda data: data)
    return check(b"", timeout=context.timeout), "application/octet-stream"
