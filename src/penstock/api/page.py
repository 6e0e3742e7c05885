"""The page at /: what is served, and how to call it."""

from __future__ import annotations

import shlex
from html import escape
from urllib.parse import quote

from penstock.api.example import example_body
from penstock.serving.routes import Model, Routes, Servable
from penstock.tensors import Signature, TensorSpec
from penstock.version import __version__

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; --accent: #0b6e99; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
code, pre { font: 13px/1.5 ui-monospace, monospace } pre { background: #8881; padding: .8rem; border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; table-layout: fixed } th:first-child { width: 3rem }
td, th { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line) }
.dim { color: var(--dim) } .state { padding: 0 .5rem; border-radius: 9px; background: #8882; font-size: .85rem }
.AVAILABLE { background: #2a82 } .END { background: #d332 } a { color: var(--accent) }
"""


def page(routes: Routes, host: str) -> str:
    """The page, for a client that reached the server as `host`."""
    models = "".join(_model(model, host) for model in routes.models.values()) or "<p>No model is served.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Penstock</title><style>{_STYLE}</style>'
        f'<h1>Penstock <span class="dim">{escape(__version__)}</span></h1>'
        "<p>This server answers TensorFlow Serving’s REST API (<code>/v1</code>), the Open Inference Protocol "
        "(<code>/v2</code>), both over gRPC as well, and SageMaker’s <code>/ping</code> and "
        '<code>/invocations</code>. <a href="openapi.json">OpenAPI</a> · <a href="metrics">Metrics</a></p>'
        f"{models}</html>"
    )


def _model(model: Model, host: str) -> str:
    labels = {version: label for label, version in model.labels.items()}
    versions = "".join(
        _version(model.versions[number], labels.get(number, ""), host) for number in sorted(model.versions, reverse=True)
    )
    return f"<h2>{escape(model.name)}</h2>{versions}"


def _version(servable: Servable, label: str, host: str) -> str:
    state = servable.state.value
    title = f"Version {servable.version}" + (f" ({escape(label)})" if label else "")
    error = f"<p>{escape(servable.error.message)}</p>" if servable.error else ""
    notes = "<p>Stateful: one process, no batches, no second try.</p>" if servable.is_stateful else ""
    default_first = sorted(servable.signatures.values(), key=lambda one: (one.name != "serving_default", one.name))
    body = "".join(_signature(servable, one, host) for one in default_first)
    return f'<p><b>{title}</b> <span class="state {state}">{state}</span></p>{error}{notes}{body}'


def _signature(servable: Servable, signature: Signature, host: str) -> str:
    rows = "".join(_row("in", spec) for spec in signature.inputs.values())
    rows += "".join(_row("out", spec) for spec in signature.outputs.values())
    return (
        f"<p>Signature <code>{escape(signature.name)}</code></p><table>"
        f"<tr><th></th><th>name</th><th>dtype</th><th>shape</th></tr>{rows}</table>"
        f"<pre>{escape(curl(servable.model, signature, host))}</pre>"
    )


def _row(direction: str, spec: TensorSpec) -> str:
    return (
        f'<tr><td class="dim">{direction}</td><td><code>{escape(spec.name)}</code></td><td>{escape(spec.dtype.name)}</td>'
        f"<td>{escape(spec.shape_text())}</td></tr>"
    )


def curl(model: str, signature: Signature, host: str, scheme: str = "http") -> str:
    """A command that works, from the signature; where the body would be long, it is left to a file."""
    body = example_body(signature)
    url = shlex.quote(f"{scheme}://{host}/v1/models/{quote(model, safe='')}:predict")
    return f"curl -d {'@request.json' if body is None else shlex.quote(body)} {url}"
