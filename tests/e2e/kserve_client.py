"""What KServe's Python client gets from a server, as JSON: run with `BASE_URL`, by an interpreter that has kserve.

The server has the models half_plus_two and strings. Errors go to standard error as well: the client logs them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

_VALUES = np.array([1, 2, 5], np.float32)


def _request(*, is_binary: bool, model: str = "half_plus_two") -> InferRequest:
    given = InferInput("x", [3], "FP32")
    given.set_data_from_numpy(_VALUES, binary_data=is_binary)
    return InferRequest(model_name=model, infer_inputs=[given], request_id="mine")


def _strings(*, is_binary: bool) -> InferRequest:
    given = InferInput("text", [2], "BYTES")
    given.set_data_from_numpy(np.array([b"a", "é".encode()], np.object_), binary_data=is_binary)
    return InferRequest(model_name="strings", infer_inputs=[given])


def _numbers(response: Any) -> Any:
    (output,) = response.outputs
    return [response.id, response.model_name, output.name, output.datatype, output.as_numpy().tolist()]


def _texts(response: Any) -> Any:
    return [[one.decode() if isinstance(one, bytes) else one for one in output.as_numpy()] for output in response.outputs]


async def _rest(url: str) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found: dict[str, Any] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model ready": await client.is_model_ready(url, "half_plus_two"),
            "other ready": await client.is_model_ready(url, "nobody"),
        }
        for way, is_binary in (("json", False), ("binary", True)):
            found[way] = _numbers(await client.infer(url, _request(is_binary=is_binary), "half_plus_two"))
            found[f"{way} strings"] = _texts(await client.infer(url, _strings(is_binary=is_binary), "strings"))
        wanted = _request(is_binary=True)
        wanted.request_outputs = [RequestedOutput("y", {"binary_data": True})]
        found["binary output"] = _numbers(await client.infer(url, wanted, "half_plus_two"))
        try:
            await client.infer(url, _request(is_binary=False, model="nobody"), "nobody")
        except httpx.HTTPStatusError as error:
            found["error"] = [error.response.status_code, str(error)]
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        found["v1"] = await client.infer(url, {"instances": _VALUES.tolist()}, "half_plus_two")
    return found


async def _grpc(url: str) -> dict[str, Any]:
    async with InferenceGRPCClient(url.partition("://")[2], timeout=30) as client:
        found: dict[str, Any] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": await client.is_model_ready("half_plus_two"),
        }
        for way, is_binary in (("typed", False), ("raw", True)):
            found[way] = _numbers(await client.infer(_request(is_binary=is_binary)))
            found[f"{way} strings"] = _texts(await client.infer(_strings(is_binary=is_binary)))
        try:
            await client.infer(_request(is_binary=False, model="nobody"))
        except grpc.RpcError as error:
            found["error"] = error.code().name
    return found


async def main(url: str) -> None:
    print(json.dumps({"rest": await _rest(url), "grpc": await _grpc(url)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
