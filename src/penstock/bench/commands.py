"""The same load for other people's tools: wrk, h2load and Locust, for those who do not trust ours."""

from __future__ import annotations

import shlex
from pathlib import Path

from penstock.bench.bodies import Body, header_fields
from penstock.bench.measurement import Plan
from penstock.bench.target import Target
from penstock.errors import UsageError

TOOLS = ("wrk", "h2load", "locust")

_WRK = """-- What `penstock bench` sends, for wrk: {url}
wrk.method = "POST"
{fields}
local file = assert(io.open("{body}", "rb"))
wrk.body = file:read("*a")
file:close()
"""
_LOCUST = '''"""What `penstock bench` sends, for Locust: {url}"""

from pathlib import Path

from locust import HttpUser, constant, task

BODY = Path(__file__).with_name("{body}").read_bytes()
HEADERS = {fields}


class Client(HttpUser):
    host = "{base}"
    wait_time = constant(0)

    @task
    def predict(self) -> None:
        self.client.post("{path}", data=BODY, headers=HEADERS)
'''


def write_command(tool: str, target: Target, body: Body, plan: Plan, folder: Path) -> str:
    """Writes what the tool needs into `folder`, and returns the command line. Raises UsageError."""
    if target.is_grpc:
        raise UsageError(f"--command-for {tool}: {target.url} is gRPC; this is for HTTP")
    body = body._replace(fields=(*body.fields, *header_fields(plan.headers)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "body"
        file.write_bytes(body.content)
        if tool == "wrk":
            script = folder / "post.lua"
            fields = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in body.fields)
            script.write_text(_WRK.format(url=target.url, fields=fields, body=file.resolve()))
            threads = min(2, plan.connections)
            return (
                f"wrk --latency -t {threads} -c {plan.connections} -d {plan.seconds:g}s "
                f"-s {shlex.quote(str(script))} {shlex.quote(target.url)}"
            )
        if tool == "locust":
            script = folder / "locustfile.py"
            text = _LOCUST.format(url=target.url, base=target.base, path=target.path, body=file.name, fields=dict(body.fields))
            script.write_text(text)
            return (
                f"locust -f {shlex.quote(str(script))} --headless -u {plan.connections} -r {plan.connections} "
                f"-t {plan.seconds:g}s"
            )
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror}") from None
    fields = " ".join(shlex.join(["-H", f"{name}: {value}"]) for name, value in body.fields)
    return f"h2load --h1 -c {plan.connections} -D {plan.seconds:g} {fields} -d {shlex.quote(str(file))} {shlex.quote(target.url)}"
