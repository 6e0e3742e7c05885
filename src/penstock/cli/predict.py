"""`penstock predict`: one answer without a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from penstock.codec.binary import encode_npy, encode_npz
from penstock.codec.tfs_predict import decode_predict, encode_predict
from penstock.errors import UsageError
from penstock.program import LoadedModel, load
from penstock.tensors import Array, Signature


def predict_once(path: str, body: str | None, inputs: Sequence[str], signature: str, output: str | None) -> None:
    """The command. Raises UsageError for its arguments and PenstockError for what the model refuses."""
    if (body is None) == (not inputs):
        raise UsageError("give either --json BODY or --input NAME=FILE.npy")
    model = load(path)
    if body is not None:
        results, is_row_format = _from_json(model, _read(body), signature)
    else:
        results, is_row_format = model.run(_arrays(inputs), signature or None), False
    if output:
        _write(Path(output), results)
    else:
        sys.stdout.buffer.write(encode_predict(results, is_row_format) + b"\n")


def _read(body: str) -> bytes:
    if not body.startswith("@"):
        return body.encode()
    try:
        return sys.stdin.buffer.read() if body == "@-" else Path(body[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"--json {body}: {error.strerror}") from None


def _from_json(model: LoadedModel, body: bytes, chosen: str) -> tuple[dict[str, Array], bool]:
    def find(name: str) -> Signature:
        return model.signature(name or chosen or None)

    request = decode_predict(body, find)
    arrays = dict(zip(request.signature.inputs, request.inputs, strict=True))
    return model.run(arrays, request.signature.name), request.is_row_format


def _arrays(inputs: Sequence[str]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for text in inputs:
        name, separator, file = text.partition("=")
        if not separator:
            raise UsageError(f"--input {text}: expected NAME=FILE.npy")
        try:
            arrays[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"--input {text}: {error}") from None
    return arrays


def _write(path: Path, results: dict[str, Array]) -> None:
    if path.suffix == ".npy" and len(results) == 1:
        content = b"".join(encode_npy(next(iter(results.values()))))
    elif path.suffix == ".npz":
        content = encode_npz(results)
    else:
        raise UsageError(f"--output {path}: expected FILE.npz, or FILE.npy for a model with one output")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--output {path}: {error.strerror}") from None
    click.echo(f"penstock: wrote {path}", err=True)
