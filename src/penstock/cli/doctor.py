"""`penstock doctor`: what is installed, what is missing, what would be used."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from penstock.config import available_cores, cache_folder
from penstock.engine.engines import PACKAGES, TENSORFLOW, installed_version
from penstock.errors import PenstockError
from penstock.version import __version__
from penstock.wire import nghttp2

#: Distribution, and what it is for. The first group comes with the package.
_PARTS = {
    "numpy": "arrays",
    "ml_dtypes": "bfloat16 and float8",
    "cffi": "calls TensorFlow's C library",
    "uvloop": "event loop",
    "httptools": "HTTP/1.1 heads",
    "pysimdjson": "JSON to arrays",
    "orjson": "arrays to JSON",
    "msgspec": "frames between processes",
    "protobuf": "reads SavedModels",
    "prometheus-client": "metrics",
    "keras": "only to export .keras and .h5 files",
    "grpcio": "gRPC where there is no libnghttp2",
}
_OPTIONAL = ("keras", "grpcio")


def examine(as_json: bool) -> None:
    """The command; exit code 1 when a model could not be served."""
    found = _examine()
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(found)
    if found["problems"]:
        sys.exit(1)


def _examine() -> dict[str, Any]:
    parts = {name: _version(name) for name in _PARTS}
    problems = [
        f"{name} is missing: pip install penstock" for name, version in parts.items() if not version and name not in _OPTIONAL
    ]
    engine = _engine()
    others = {name: installed_version(name) for name in PACKAGES if name != TENSORFLOW}
    if engine.get("error") and not any(others.values()):
        problems.append(str(engine["error"]))
    return {
        "penstock": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": available_cores(),
        "cache": str(cache_folder()),
        "parts": parts,
        "simd_json": _simd(),
        "http2": _http2(),
        "engine": engine,
        "other_engines": others,
        "problems": problems,
    }


def _http2() -> str:
    try:
        return nghttp2.load()[1]
    except nghttp2.NotThere as error:
        return str(error)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _simd() -> str | None:
    if importlib.util.find_spec("simdjson") is None:
        return None
    import simdjson

    return str(simdjson.Parser().implementation)


def _engine() -> dict[str, Any]:
    from penstock.engine.tensorflow import TensorFlowEngine

    try:
        engine = TensorFlowEngine()
    except PenstockError as error:
        return {"name": "tensorflow", "error": error.message}
    return {"name": engine.name, "version": engine.version, "operations": len(engine.registered_ops())}


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for key in ("penstock", "python", "system", "cores", "cache"):
        console.print(f"{key:9} {found[key]}", markup=False)
    table = Table("part", "version", "for", box=None, header_style="dim", pad_edge=False)
    for name, version in found["parts"].items():
        table.add_row(
            name, version or "[red]missing[/red]" if name not in _OPTIONAL else version or "not installed", _PARTS[name]
        )
    console.print(table)
    engine = found["engine"]
    if "version" in engine:
        console.print(f"engine    {engine['name']} {engine['version']}, {engine['operations']} operations", markup=False)
    for name, version in found["other_engines"].items():
        console.print(f"engine    {name} {version or 'is not installed'}", markup=False)
    console.print(f"JSON      simdjson for {found['simd_json']}", markup=False)
    console.print(f"HTTP/2    {found['http2']}", markup=False)
    for problem in found["problems"]:
        console.print(f"problem   {problem}", markup=False, style="red")
    if not found["problems"]:
        console.print("All is there to serve models." if "error" in engine else "All is there to serve TensorFlow models.")
