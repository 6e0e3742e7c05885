"""What a proof is made over: inputs that a user gives, and inputs made from the signature, with the edges of its types.

A user's samples: `.npy` (the only input of the default signature, rows in its first dimension), `.npz` (an array for each input),
`.json` and `.jsonl` (a body of TensorFlow Serving's REST API, in a file or on each line), or a folder of these. Requests that
were recorded for the version's warm-up count as samples too.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from penstock.codec.convert import convert
from penstock.codec.tfs_predict import decode_predict
from penstock.errors import InvalidArgument, PenstockError, UsageError
from penstock.optimize.proof import Case
from penstock.savedmodel.warmup import read_warmup, recorded_request
from penstock.tensors import Array, Signature, TensorSpec

#: Rows of the batches that are made: one, two, an odd number, a large one.
ROWS = (1, 2, 7, 33)
#: Sizes that stand for dimensions (but the first) which a signature leaves open.
_OPEN_SIZES = (16, 8, 32, 1)
_MAX_ELEMENTS = 8 << 20
_TEXTS = (b"", b"a", b"the quick brown fox", b"0", b"-1.5e3", "grün Ω 漢字".encode(), b"x" * 4096, b" leading and trailing ")
#: Integers below these may be beyond the end of a table, and are tried all the same: OpenVINO computes some operations on
#: integers in float32, which has no odd numbers above 2^24. (A single number may be how often something is done, or how large.)
_GUESSES = {"hundreds": 100, "tens of thousands": 30000}
_GUESSES_IN_BATCHES = {**_GUESSES, "tens of millions": 1 << 25}
_SUFFIXES = (".npy", ".npz", ".json", ".jsonl")


def made_up(signature: Signature, rows: Sequence[int] = ROWS, seed: int = 0) -> list[Case]:
    """Cases from what the signature says: common values in batches of each size, then edges; none where none fits in memory."""
    random = np.random.default_rng(seed)
    cases: list[Case] = []
    for size in _OPEN_SIZES:
        for count in rows if signature.takes_batches else (1,):
            if _elements(signature, count, size) > _MAX_ELEMENTS:
                continue
            cases += [_case(signature, count, size, kind, random) for kind in ("uniform", "normal")]
        few = 2 if signature.takes_batches else 1
        if _elements(signature, few, size) <= _MAX_ELEMENTS:
            cases += [_case(signature, few, size, kind, random) for kind in ("zeros", "ones", "negative", "large", "tiny")]
            if _has_integers(signature):
                kinds = _GUESSES_IN_BATCHES if signature.takes_batches else _GUESSES
                guesses = [_case(signature, few, size, kind, random) for kind in kinds]
                cases += [case._replace(is_guess=True) for case in guesses]
            if _has_floats(signature):
                cases.append(_case(signature, few, size, "nan", random)._replace(is_edge=True))
        if not _has_open_sizes(signature):
            break
    return cases


def given(path: Path, signatures: Mapping[str, Signature]) -> list[Case]:
    """A user's samples. Raises UsageError for what cannot be read, with the place."""
    files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"--samples {path}: no {', '.join(_SUFFIXES)} in it")
    cases = [case for file in files for case in _of_file(file, signatures)]
    if not cases:
        raise UsageError(f"--samples {path}: it holds no sample")
    return cases + _for_twins(cases, signatures)


def _for_twins(cases: Sequence[Case], signatures: Mapping[str, Signature]) -> list[Case]:
    """The samples once more for signatures that take the same and were given none: Keras saves one function as two."""
    given = {case.signature for case in cases}
    return [
        case._replace(signature=name)
        for name, signature in signatures.items()
        if name not in given
        for case in cases
        if _inputs(signature) == _inputs(signatures[case.signature])
    ]


def _inputs(signature: Signature) -> list[tuple[str, str, tuple[int | None, ...] | None]]:
    return [(spec.name, spec.dtype.name, spec.shape) for spec in signature.inputs.values()]


def recorded(version: Path, signatures: Mapping[str, Signature]) -> list[Case]:
    """The requests that were recorded for a version's warm-up."""
    cases = [
        Case(
            request.signature_name,
            {**signatures[request.signature_name].defaults, **request.inputs},
            f"recorded request {number}",
        )
        for number, request in enumerate(read_warmup(version), 1)
        if request.examples is None and request.signature_name in signatures
    ]
    body = recorded_request(version)
    if body is not None:
        with contextlib.suppress(UsageError):  # of a signature that is not wanted
            cases.append(_of_json(body, signatures, "warmup.json"))
    return cases


def rows_of(cases: Sequence[Case], signature: Signature, rows: int) -> dict[str, Array] | None:
    """A batch of `rows` made of the cases' own rows, again and again; None where they have none that fit together."""
    inputs = [case.inputs for case in cases if case.signature == signature.name and not case.is_edge]
    inputs = [one for one in inputs if _is_batch(one, signature)]
    if not inputs:
        return None
    first = inputs[0]
    fitting = [one for one in inputs if all(one[name].shape[1:] == first[name].shape[1:] for name in signature.inputs)]
    batch = {name: np.concatenate([one[name] for one in fitting]) for name in signature.inputs}
    places = np.arange(rows) % len(next(iter(batch.values())))
    return {name: np.ascontiguousarray(array[places]) for name, array in batch.items()}


def _is_batch(inputs: Mapping[str, Array], signature: Signature) -> bool:
    """Whether all of a signature's inputs are there, with the same number of rows."""
    counts = {inputs[name].shape[:1] if name in inputs else () for name in signature.inputs}
    return len(counts) == 1 and counts != {()} and counts != {(0,)}


def _of_file(file: Path, signatures: Mapping[str, Signature]) -> Iterator[Case]:
    try:
        if file.suffix == ".npy":
            signature = _default(signatures)
            if len(signature.inputs) != 1:
                raise UsageError(f"{file}: the model has {len(signature.inputs)} inputs; expected an .npz with all of them")
            with file.open("rb") as opened:
                array = np.lib.format.read_array(opened, allow_pickle=False)
            yield _arrays(signature, {next(iter(signature.inputs)): array}, f"sample {file.name}")
        elif file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                yield _arrays(_default(signatures), dict(arrays), f"sample {file.name}")
        else:
            lines = file.read_bytes().splitlines() if file.suffix == ".jsonl" else [file.read_bytes()]
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _of_json(line, signatures, f"sample {file.name}, line {number}")
    except PenstockError as error:
        raise UsageError(f"{file}: {error.message}") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file}: {error}") from None


def _of_json(body: bytes, signatures: Mapping[str, Signature], what: str) -> Case:
    def named(name: str) -> Signature:
        found = signatures.get(name or "serving_default") or (_default(signatures) if not name else None)
        if found is None:
            raise UsageError(f"{what}: the model has no signature {name!r}")
        return found

    decoded = decode_predict(body, named)
    return Case(decoded.signature.name, dict(zip(decoded.signature.inputs, decoded.inputs, strict=True)), what)


def _arrays(signature: Signature, arrays: Mapping[str, Array], what: str) -> Case:
    if arrays.keys() != signature.inputs.keys():
        raise InvalidArgument(f"arrays {', '.join(arrays)}: expected {', '.join(signature.inputs)}")
    return Case(signature.name, {name: convert(array, signature.inputs[name]) for name, array in arrays.items()}, what)


def _default(signatures: Mapping[str, Signature]) -> Signature:
    return signatures.get("serving_default") or next(iter(signatures.values()))


def _has_open_sizes(signature: Signature) -> bool:
    return any(spec.shape is None or None in spec.shape[1:] for spec in signature.inputs.values())


def _has_integers(signature: Signature) -> bool:
    kinds = [spec.dtype for spec in signature.inputs.values()]
    return any(not kind.is_string and kind.name != "bool" and kind.numpy.kind in "iu" for kind in kinds)


def _has_floats(signature: Signature) -> bool:
    return any(_is_float(spec) for spec in signature.inputs.values())


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype.numpy.kind in "fc" or "float" in spec.dtype.name


def _shape(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    """The shape that stands for the signature's: open dimensions but the first have `size`."""
    if spec.shape is None:
        return (rows,)
    return tuple((rows if place == 0 else size) if one is None else one for place, one in enumerate(spec.shape))


def _elements(signature: Signature, rows: int, size: int) -> int:
    return sum(prod(_shape(spec, rows, size)) for spec in signature.inputs.values())


def _case(signature: Signature, rows: int, size: int, kind: str, random: np.random.Generator) -> Case:
    inputs = {spec.name: _values(spec, _shape(spec, rows, size), kind, random) for spec in signature.inputs.values()}
    shape = f", open dimensions {size}" if _has_open_sizes(signature) else ""
    return Case(signature.name, inputs, f"{rows} row{'s' if rows > 1 else ''}{shape}, {kind}")


def _values(spec: TensorSpec, shape: tuple[int, ...], kind: str, random: np.random.Generator) -> Array:
    if spec.dtype.is_string:
        return _strings(shape, kind, random)
    if spec.dtype.name == "bool":
        return np.asarray(random.integers(0, 2, shape), bool)
    if not _is_float(spec):
        # Integers are places in tables more often than not: small ones, so that they are in range.
        high = _GUESSES_IN_BATCHES.get(kind) or {"zeros": 1, "ones": 2}.get(kind, 10)
        high = min(high, 7 if spec.dtype.name.endswith("int4") else int(np.iinfo(spec.dtype.numpy).max))
        low = 1 if kind == "ones" else 0
        return np.asarray(random.integers(low, max(high, low + 1), shape), spec.dtype.numpy)
    values: Array
    if kind == "uniform":
        values = random.random(shape)
    elif kind in ("normal", "nan"):
        values = random.standard_normal(shape)
    elif kind == "negative":
        values = -random.random(shape)
    elif kind == "large":
        values = random.standard_normal(shape) * 255.0
    elif kind == "tiny":
        values = random.standard_normal(shape) * 1e-6
    else:
        values = np.full(shape, 1.0 if kind == "ones" else 0.0)
    values = np.asarray(values)  # what NumPy makes of a scalar is none
    if spec.dtype.numpy.kind == "c":
        values = values + 1j * values.reshape(-1)[::-1].reshape(shape)  # the imaginary parts matter too
    if kind == "nan" and values.size:
        values.reshape(-1)[0] = np.nan
    return np.asarray(values, spec.dtype.numpy)


def _strings(shape: tuple[int, ...], kind: str, random: np.random.Generator) -> Array:
    count = prod(shape)
    strings = np.empty(count, object)
    if kind in ("zeros", "tiny"):
        strings[:] = [b""] * count
    elif kind == "large":
        strings[:] = [b"long " * 400] * count
    else:
        strings[:] = [_TEXTS[int(place)] for place in random.integers(0, len(_TEXTS), count)]
    return strings.reshape(shape)
