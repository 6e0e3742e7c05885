"""GET /openapi.json: the routes, with the schemas of the models that are served now."""

from __future__ import annotations

import itertools
import re
from typing import Any

import orjson

from penstock.api.example import example_body, example_infer
from penstock.serving.routes import Model, Routes, State
from penstock.tensors import Signature, TensorSpec
from penstock.version import __version__

_ERROR = {
    "description": "What is wrong, for the one who asked.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


_OK = {"200": {"description": "OK", "content": {"application/json": {}}}, "default": _ERROR}


def openapi(routes: Routes, *, loads_models: bool = False, changes_settings: bool = False) -> dict[str, Any]:
    """The OpenAPI 3.1 document. The flags say what clients may do besides."""
    paths: dict[str, Any] = {
        "/ping": {
            "get": _operation(
                "Whether the default model answers",
                {"200": {"description": "It does."}, "502": {"description": "It does not."}},
            )
        },
        "/metrics": {"get": _operation("Prometheus metrics", {"200": {"description": "Text.", "content": {"text/plain": {}}}})},
        "/invocations": {"post": _invocations()},
        "/v2": {"get": _operation("The server and its extensions of the Open Inference Protocol", _OK)},
        "/v2/health/live": {"get": _operation("Whether the server answers", {"200": {"description": "It does."}})},
        "/v2/health/ready": {
            "get": _operation(
                "Whether the models answer", {"200": {"description": "They do."}, "503": {"description": "Some do not."}}
            )
        },
    }
    if loads_models:
        paths |= _loading()
    if changes_settings:
        example = {"instances": 2}
        operation = _operation("Change options while the server serves", _OK, requestBody=_json_body(example))
        paths["/settings"] = {"get": _operation("The options that can be changed, as they are now", _OK), "post": operation}
    schemas: dict[str, Any] = {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }
    for model in routes.models.values():
        paths.update(_model_paths(model, schemas))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": __version__, "description": "Models served by Penstock."},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(summary: str, responses: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"summary": summary, "responses": responses, **others}


def _invocations() -> dict[str, Any]:
    types = ("application/json", "application/jsonlines", "text/csv", "application/x-npy", "application/octet-stream")
    content: dict[str, Any] = {name: {} for name in types}
    answer = {
        "description": "Predictions, in the format of Accept.",
        "content": {name: {} for name in types if name != types[1]},
    }
    return _operation(
        "SageMaker invocation of the default model",
        {"200": answer, "default": _ERROR},
        requestBody={"content": content},
    )


def _loading() -> dict[str, Any]:
    """The routes of multi-model endpoints."""
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/models": {
            "get": _operation("The models that are loaded", _OK),
            "post": _operation("Load a model", _OK, requestBody=_json_body({"model_name": "name", "url": "/path/of/it"})),
        },
        "/models/{name}": {
            "get": _operation("A model that is loaded", _OK, parameters=[name]),
            "delete": _operation("Unload a model", _OK, parameters=[name]),
        },
    }


def _json_body(example: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"example": example}}}


def _model_paths(model: Model, schemas: dict[str, Any]) -> dict[str, Any]:
    servable = model.latest()
    base, base_v2 = f"/v1/models/{model.name}", f"/v2/models/{model.name}"
    paths: dict[str, Any] = {
        base: {"get": _operation(f"State of the versions of {model.name}", _OK)},
        f"{base}/metadata": {"get": _operation(f"Signatures of {model.name}", _OK)},
        base_v2: {"get": _operation(f"Inputs and outputs of {model.name}", _OK)},
        f"{base_v2}/ready": {
            "get": _operation(f"Whether {model.name} answers", {"200": {"description": "It does."}, "default": _ERROR})
        },
    }
    if servable is None or servable.state is not State.AVAILABLE:
        return paths
    references = []
    for signature in servable.signatures.values():
        name = _component_name(f"{model.name}.{signature.name}", schemas)
        schemas[name] = _request_schema(signature)
        references.append({"$ref": f"#/components/schemas/{name}"})
    first = servable.signatures.get("serving_default") or next(iter(servable.signatures.values()), None)
    content: dict[str, Any] = {"schema": {"oneOf": references}}
    example = None if first is None else example_body(first)
    if example is not None:
        content["example"] = orjson.loads(example)
    body = {"required": True, "content": {"application/json": content}}
    for verb in ("predict", "classify", "regress"):
        paths[f"{base}:{verb}"] = {
            "post": _operation(
                f"{verb.capitalize()} with {model.name}",
                _OK,
                requestBody=body if verb == "predict" else {"content": {"application/json": {}}},
            )
        }
    infer = None if first is None else example_infer(first)
    paths[f"{base_v2}/infer"] = {
        "post": _operation(
            f"Infer with {model.name}, by the Open Inference Protocol",
            _OK,
            requestBody={"content": {"application/json": {} if infer is None else {"example": infer}}},
        )
    }
    return paths


def _component_name(name: str, taken: dict[str, Any]) -> str:
    """`name` with the characters that OpenAPI allows, and a number behind it where another has become the same."""
    allowed = re.sub(r"[^a-zA-Z0-9._-]", "_", name)
    numbers = ("" if number == 1 else f"_{number}" for number in itertools.count(1))
    return next(allowed + number for number in numbers if allowed + number not in taken)


def _request_schema(signature: Signature) -> dict[str, Any]:
    """A predict body: rows under `instances`, or columns under `inputs`."""
    rows = {name: _tensor_schema(spec, spec.shape[1:] if spec.shape else None) for name, spec in signature.inputs.items()}
    row: dict[str, Any] = {"type": "object", "required": list(rows), "properties": rows}
    if len(rows) == 1:
        row = {"anyOf": [next(iter(rows.values())), row]}
    columns = {name: _tensor_schema(spec, spec.shape) for name, spec in signature.inputs.items()}
    column: dict[str, Any] = {"type": "object", "required": list(columns), "properties": columns}
    if len(columns) == 1:
        column = {"anyOf": [next(iter(columns.values())), column]}
    return {
        "type": "object",
        "properties": {
            "signature_name": {"const": signature.name},
            "instances": {"type": "array", "minItems": 1, "items": row},
            "inputs": column,
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    }


def _tensor_schema(spec: TensorSpec, shape: tuple[int | None, ...] | None) -> dict[str, Any]:
    """Nested arrays of the element's type. Sizes are a hint: the graph decides (so they are described, not demanded)."""
    kind = spec.dtype.numpy.kind
    element: dict[str, Any] = {"type": {"b": "boolean", "i": "integer", "u": "integer", "O": "string"}.get(kind, "number")}
    if kind == "O":
        element = {"anyOf": [element, {"type": "object", "required": ["b64"], "properties": {"b64": {"type": "string"}}}]}
    if shape is None:
        return {"description": f"{spec.dtype.name}, any shape"}
    schema = element
    for _ in shape:
        schema = {"type": "array", "items": schema}
    return {**schema, "description": f"{spec.dtype.name} {spec.shape_text()}"}
