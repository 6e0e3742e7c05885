"""The command `penstock`. Each command's work is in a module of its own, imported when it is called."""

from __future__ import annotations

import os
import sys
from typing import Any

# One process a gateway and a host: BLAS threads in each would only fight. Before anything imports NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click

from penstock.cli.first_engine import first_engine
from penstock.cli.options import build_options, serve_options
from penstock.errors import PenstockError, UsageError
from penstock.process.zygote_process import starting
from penstock.version import __version__


class _Group(click.Group):
    """Turns our errors into one line and exit code 2 or 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _say(str(error))
            sys.exit(2)
        except PenstockError as error:
            _say(error.message)
            sys.exit(1)


def _say(message: str) -> None:
    click.echo(f"penstock: error: {message}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="penstock")
def cli() -> None:
    """Serve TensorFlow and Keras models."""


@cli.command(name="serve")
@click.argument("path", required=False)
@click.option("--model", "models", multiple=True, metavar="NAME=PATH", help="A model to serve; can be repeated.")
@click.option("--name", help="Name of the model at PATH.")
@click.option("--config", metavar="FILE", help="TOML file with options.")
@serve_options()
def serve_command(path: str | None, models: tuple[str, ...], name: str | None, config: str | None, **given: Any) -> None:
    """Serve the model at PATH: a SavedModel, a folder of versions, model.tar.gz, or a .keras or .h5 file."""
    options = build_options(given, config, os.environ)
    first = first_engine(options, [one for one in (path, *(model.partition("=")[2] for model in models)) if one])
    with starting(options, first) as engine:
        from penstock.cli.serve import serve

        serve(path, models, name, options, engine)


@cli.command()
@click.argument("path")
@click.option("--tags", default="serve", help="Tags of the graph, separated by commas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(path: str, tags: str, as_json: bool) -> None:
    """Show what is in the model at PATH: signatures, types, sizes, versions, state, missing operations."""
    from penstock.cli.inspect import inspect_model

    inspect_model(path, tuple(tags.split(",")), as_json)


@cli.command()
@click.argument("path")
@click.option("--json", "body", metavar="BODY", help='TensorFlow Serving\'s JSON body, or @FILE: {"instances": …}.')
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An input; can be repeated.")
@click.option("--signature", default="", help="Signature to run.")
@click.option("--output", "output", metavar="FILE", help="Write .npz (or .npy) instead of printing.")
def predict(path: str, body: str | None, inputs: tuple[str, ...], signature: str, output: str | None) -> None:
    """Run the model at PATH once, without a server."""
    from penstock.cli.predict import predict_once

    predict_once(path, body, inputs, signature, output)


@cli.command()
@click.argument("source")
@click.argument("target")
def export(source: str, target: str) -> None:
    """Export a Keras file as a SavedModel: TARGET/1."""
    from penstock.savedmodel.keras import export_to

    export_to(source, target)


@cli.command(name="optimize")
@click.argument("path")
@click.option(
    "--out", metavar="DIR", help="Write DIR/VERSION, which serves without TensorFlow, instead of a plan beside the model."
)
@click.option("--versions", default="latest", show_default=True, help="Versions to optimize, as in serve.")
@click.option("--allow", multiple=True, metavar="PRECISIONS", help="Try reduced precision too: fp16, bf16, int8.")
@click.option(
    "--samples", metavar="PATH", help="Inputs to prove and calibrate with: .npy, .npz, .json, .jsonl, or a folder of them."
)
@click.option("--signature", "signatures", multiple=True, help="Keep this signature and no other; can be repeated.")
@click.option("--engine", "engines", multiple=True, metavar="ENGINES", help="Try these engines and no others.")
@click.option(
    "--metric", default="", metavar="MODULE:FUNCTION", help="Your own measure of [(inputs, outputs), …]; more is better."
)
@click.option("--max-drop", default=0.0, show_default=True, help="How much less of it than TensorFlow's a variant may have.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(2, 1000), help="Rounds of the race.")
@click.option("--keep-all", is_flag=True, help="Write all proven variants, not only the winner.")
@click.option("--tags", default="serve", help="Tags of the graph, separated by commas.")
@click.option("--op-library", multiple=True, metavar="FILE", help="Shared library with custom operations; can be repeated.")
def optimize_command(path: str, versions: str, **given: Any) -> None:
    """Make the model at PATH quicker: convert it, prove that it still answers the same, race the forms, keep the quickest."""
    from penstock.cli.optimize import build_optimize_options, optimize_models

    optimize_models(path, versions, build_optimize_options(**given))


@cli.command(name="bench")
@click.argument("url", required=False)
@click.option("--model", default="", help="The model to ask, or several with commas between them, or all.")
@click.option("--api", default="", type=click.Choice(["", "tfs", "oip", "sagemaker"]), help="How to ask, where URL is a server.")
@click.option(
    "--format",
    default="",
    type=click.Choice(["", "json", "binary", "csv", "npy", "typed", "content", "raw"]),
    help="Format of a body that is made up.",
)
@click.option("--rows", default=1, show_default=True, type=click.IntRange(1, 1 << 20), help="Rows of a body that is made up.")
@click.option("--body", metavar="PATH", help="A file with the body of a request, a folder of them, or recorded ones.")
@click.option("--content-type", default="", help="What the body is, where its file's name does not say it.")
@click.option("--header", multiple=True, metavar="NAME: VALUE", help="A header field of each request; can be repeated.")
@click.option(
    "-c", "--connections", default=0, type=click.IntRange(0, 20_000), help="Connections [default: 16, or 128 with a rate]."
)
@click.option(
    "--streams",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Calls of gRPC that each connection has under way.",
)
@click.option(
    "-r",
    "--rate",
    default="",
    metavar="RATE",
    help="Requests per second, whatever the server does: 500, 100..2000, 100:10,900:2.",
)
@click.option(
    "--arrivals",
    default="poisson",
    show_default=True,
    type=click.Choice(["poisson", "constant"]),
    help="How requests of a rate come.",
)
@click.option(
    "-d",
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Of the measurement, or of each step of a rate.",
)
@click.option(
    "--warm-up", default=2.0, show_default=True, type=click.FloatRange(0), help="Seconds of load before the measurement."
)
@click.option(
    "--timeout", default=30.0, show_default=True, type=click.FloatRange(0.01), help="Seconds until a request has failed."
)
@click.option(
    "--zipf", default=0.0, type=click.FloatRange(0), help="Of several bodies, the n-th is sent 1/n^ZIPF as often as the first."
)
@click.option("--seed", default=0, help="Of made-up numbers and arrivals.")
@click.option(
    "--slo", default="", metavar="GOAL", help="Search for the highest rate that holds it: p99<50ms, or p50<5ms,errors<1%."
)
@click.option("--pid", default=0, help="The server's first process, where its port does not tell.")
@click.option("--out", metavar="DIR", help="Write result.json, report.html, report.md and seconds.csv there.")
@click.option(
    "--command-for", default="", type=click.Choice(["", "wrk", "h2load", "locust"]), help="Print a command for this tool instead."
)
@click.option("--compare", nargs=2, metavar="A.json B.json", help="Say whether two results differ.")
def bench_command(url: str | None, compare: tuple[str, str] | None, **given: Any) -> None:
    """Load the server at URL, and say what it made of it.

    URL is a server, such as http://127.0.0.1:8080 or grpc://127.0.0.1:8080, or a path that answers POST.
    """
    from penstock.cli.bench import BenchOptions, bench, tell_difference

    if compare:
        tell_difference(compare)
    elif url is None:
        raise UsageError("expected the URL of a server, such as http://127.0.0.1:8080")
    else:
        bench(url, BenchOptions(**given))


@cli.command(name="tune")
@click.argument("path", required=False)
@click.option("--name", help="Name of the model.")
@click.option("--body", default="", metavar="PATH", help="A file with the body of a request, a folder of them, or recorded ones.")
@click.option("--content-type", default="", help="What the body is, where its file's name does not say it.")
@click.option(
    "--samples", default="", metavar="PATH", help="Inputs that bodies are made of: .npy, .npz, .json, .jsonl, or a folder."
)
@click.option("--rows", default=1, show_default=True, type=click.IntRange(1, 1 << 20), help="Rows of a request that is made up.")
@click.option("--api", default="", type=click.Choice(["", "tfs", "oip", "sagemaker"]), help="How the server is asked.")
@click.option("--format", default="", type=click.Choice(["", "json", "binary", "csv", "npy"]), help="Format of what is made up.")
@click.option("--slo", default="", metavar="GOAL", help="What has to hold: p99<50ms, or p50<5ms,errors<1%. Without it: the knee.")
@click.option(
    "--objective",
    "goal",
    default="throughput",
    show_default=True,
    type=click.Choice(["throughput", "latency", "cost"]),
    help="What is sought under it.",
)
@click.option("--budget", default="10m", show_default=True, metavar="TIME", help="How long it may take: 90s, 10m, 1h.")
@click.option("--config", default="", metavar="FILE", help="TOML file with options that all settings have in common.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="An option that is not tuned; can be repeated.")
@click.option("--price", default=0.0, type=click.FloatRange(0), help="Of this machine for an hour, in any currency.")
@click.option("--seed", default=0, help="Of made-up numbers.")
@click.option("--out", default="tuned", show_default=True, metavar="DIR", help="Where the results are written.")
@click.option(
    "--apply",
    "server",
    metavar="URL",
    help="A running server that gets what was found, without a restart; then, or without PATH.",
)
def tune_command(path: str | None, name: str | None, server: str | None, out: str, **given: Any) -> None:
    """Find the settings that the model at PATH is served best with on this machine, by serving it with them.

    The same command goes on where an interrupted one was.
    """
    from penstock.cli.tune import apply_tuned, tune

    if path is None and server is None:
        raise UsageError("nothing to tune: give the PATH of a model")
    if path is not None:
        tune(path, name, out, **given)
    if server is not None:
        apply_tuned(server, out)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Show what is installed, what is missing, and what would be used."""
    from penstock.cli.doctor import examine

    examine(as_json)


@cli.group()
def sagemaker() -> None:
    """Be SageMaker's TensorFlow container."""


@sagemaker.command(name="serve")
@click.option("--root", default="/opt/ml/model", show_default=True, help="Where the model is.")
@click.option("--config", metavar="FILE", help="TOML file with options.")
@serve_options()
def sagemaker_serve(root: str, config: str | None, **given: Any) -> None:
    """Serve /opt/ml/model as SAGEMAKER_* variables say."""
    from penstock.cli.sagemaker import sagemaker_options

    options, settings = sagemaker_options(config, given, os.environ)
    with starting(options, first_engine(options, [root])) as engine:
        from penstock.cli.serve import serve_sagemaker

        serve_sagemaker(root, options, settings, engine)


def main() -> None:
    """The console script."""
    cli(prog_name="penstock")
