"""`penstock inspect`: what a model is, before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from penstock.errors import PenstockError
from penstock.models.plan import plan_folder, read_plan
from penstock.savedmodel.layout import GRAPH_FILE, ModelFolder
from penstock.savedmodel.locate import locate
from penstock.savedmodel.reader import SavedModel, read_saved_model
from penstock.tensors import TensorSpec


def inspect_model(path: str, tags: tuple[str, ...], as_json: bool) -> None:
    """The command. Raises UsageError where there is no model, and PenstockError when none of its versions can be read."""
    folders = locate(Path(path))
    known = _registered_ops()
    models = [_describe(folder, tags, known) for folder in folders]
    if as_json:
        print(orjson.dumps(models, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(highlight=False, soft_wrap=True)
    for model in models:
        _print(console, model)


def _registered_ops() -> frozenset[str] | None:
    """The operations that TensorFlow has; None where it is not installed."""
    from penstock.engine.tensorflow import TensorFlowEngine

    try:
        return TensorFlowEngine().registered_ops()
    except PenstockError:
        return None


def _describe(folder: ModelFolder, tags: tuple[str, ...], known: frozenset[str] | None) -> dict[str, Any]:
    versions = []
    for version, path in sorted(folder.versions.items(), reverse=True):
        try:
            versions.append({**_describe_files(version, path, tags, known), **_describe_plan(path)})
        except PenstockError as error:
            if len(folder.versions) == 1:
                raise
            versions.append({"version": version, "path": str(path), "error": error.message})
    return {"model": folder.name, "path": str(folder.path), "versions": versions}


def _describe_files(version: int, path: Path, tags: tuple[str, ...], known: frozenset[str] | None) -> dict[str, Any]:
    if not (path / GRAPH_FILE).is_file() and plan_folder(path) is not None:
        return {"version": version, "path": str(path)}
    return _describe_version(version, read_saved_model(path, tags), known)


def _describe_plan(path: Path) -> dict[str, Any]:
    """What `penstock optimize` has found of the version."""
    folder = plan_folder(path)
    if folder is None:
        return {}
    plan = read_plan(folder)
    report = plan.report(plan.winner)
    return {"plan": {"winner": plan.winner, "speedup": report.speedup, "made": plan.made, "folder": str(folder)}}


def _describe_version(version: int, saved: SavedModel, known: frozenset[str] | None) -> dict[str, Any]:
    return {
        "version": version,
        "path": str(saved.path),
        "tags": list(saved.tags),
        "tensorflow_version": saved.tensorflow_version,
        "is_stateful": saved.is_stateful,
        "stateful_reason": saved.stateful_reason,
        "bytes": {"graph": saved.graph_bytes, "variables": saved.variables_bytes, "assets": saved.assets_bytes},
        "missing_ops": None if known is None else sorted(saved.ops - known),
        "signatures": {
            name: {
                "method_name": signature.method_name,
                "inputs": [_describe_tensor(spec) for spec in signature.inputs.values()],
                "outputs": [_describe_tensor(spec) for spec in signature.outputs.values()],
            }
            for name, signature in saved.signatures.items()
        },
        "unsupported_signatures": saved.unsupported,
    }


def _describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype.name,
        "shape": None if spec.shape is None else list(spec.shape),
        "tensor": spec.tensor,
    }


def _print(console: Console, model: dict[str, Any]) -> None:
    console.print(f"[bold]{model['model']}[/bold]  {model['path']}", markup=True)
    for version in model["versions"]:
        console.print()
        if "error" in version:
            console.print(f"version {version['version']}: {version['error']}", markup=False)
            continue
        if "signatures" in version:
            _print_version(console, version)
        else:
            console.print(f"version {version['version']}: a plan and its variant, without a SavedModel")
        if "plan" in version:
            plan = version["plan"]
            quicker = f", {plan['speedup']:.3g} times as quick as TensorFlow" if plan["speedup"] else ""
            console.print(f"plan of {plan['made']}: {plan['winner']}{quicker}", markup=False)


def _print_version(console: Console, version: dict[str, Any]) -> None:
    sizes = version["bytes"]
    console.print(
        f"version {version['version']}: {_size(sum(sizes.values()))} (graph {_size(sizes['graph'])}, variables "
        f"{_size(sizes['variables'])}, assets {_size(sizes['assets'])}), "
        f"written by TensorFlow {version['tensorflow_version'] or '?'}"
    )
    if version["is_stateful"]:
        console.print(f"stateful: {version['stateful_reason']}; one process, no batches", markup=False)
    if version["missing_ops"]:
        console.print(f"missing operations: {', '.join(version['missing_ops'])}; load them with --op-library", markup=False)
    for name, reason in version["unsupported_signatures"].items():
        console.print(f"signature {name} cannot be served: {reason}", markup=False)
    table = Table("signature", "", "name", "dtype", "shape", box=None, header_style="dim", pad_edge=False)
    for name, signature in version["signatures"].items():
        for direction in ("inputs", "outputs"):
            for tensor in signature[direction]:
                shape = "unknown rank" if tensor["shape"] is None else str([size or "?" for size in tensor["shape"]])
                table.add_row(name, direction[:-1], tensor["name"], tensor["dtype"], shape.replace("'", "").replace("[", "\\["))
                name = ""
    console.print(table)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
