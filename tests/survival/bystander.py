"""Clients of a model that nobody touches: while others are killed, swapped and broken, each of its requests is answered.

Guarantees: requests go out all the time on connections that are kept; a connection is opened again only when it broke, and the
request that was on it is sent again, so that only answers count. What was not a right answer is kept, and so is every break.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from types import TracebackType

from tests.servers import Server, wait_until

#: Two of them for each of two gateways, more or less: the kernel spreads connections by chance.
CONNECTIONS = 4
#: Between two requests of a connection: load enough to notice whatever goes wrong, and the cores stay free for the test.
_PAUSE_S = 0.01
_TIMEOUT_S = 40.0


class Bystander:
    """Sends requests to `model` on the TensorFlow Serving API, as a context; half_plus_two, or what gives `addends` as well.

    `breaks` counts connections that broke, of which `allowed_breaks` may; `answers` counts what was right, `wrong` holds what was
    not. `slowest_s` is the longest that an answer took.
    """

    def __init__(self, server: Server, model: str = "bystander", addends: tuple[float, ...] = (2.0,)) -> None:
        self.breaks = self.allowed_breaks = 0
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self._server = server
        self._port = server.port
        self._model = model
        self._addends = addends
        self._counts = [0] * CONNECTIONS
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._send_requests, args=(place,)) for place in range(CONNECTIONS)]

    @property
    def answers(self) -> int:
        return sum(self._counts)

    def wait_for_answers(self, timeout_s: float = 30.0) -> None:
        """Until each connection has had an answer to a request that was sent after this was called."""
        before = list(self._counts)
        self.assert_is_running()
        wait_until(
            lambda: self.wrong or all(count >= old + 2 for count, old in zip(self._counts, before, strict=True)),
            f"answers of {self._model} on all connections: {self._counts}, after {before}",
            timeout_s,
        )

    def assert_is_running(self) -> None:
        """The server itself has not ended."""
        code = self._server.process.poll()
        assert code is None, f"the server ended with {code}:\n{self._server.log}"

    def assert_unharmed(self) -> None:
        """All answers were right, and no more connections broke than may."""
        self.assert_is_running()
        assert not self.wrong, (
            f"{len(self.wrong)} of {self.answers + len(self.wrong)} requests to {self._model}: {self.wrong[:5]}"
        )
        assert self.answers >= CONNECTIONS, f"{self._model} was hardly asked: {self._counts}"
        assert self.breaks <= self.allowed_breaks, f"{self.breaks} connections broke, and {self.allowed_breaks} may"

    def _send_requests(self, place: int) -> None:
        connection = self._connection()
        turn = 0
        while not self._is_over.is_set():
            turn += 1
            value = place * 100_000.0 + turn
            started = time.monotonic()
            try:
                status, body = self._ask(connection, value)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = self._connection()
                with self._lock:
                    self.breaks += 1
                    if isinstance(error, TimeoutError):
                        self.wrong.append(f"no answer within {_TIMEOUT_S:g} s")
            else:
                self._take(place, value, status, body, time.monotonic() - started)
            self._is_over.wait(_PAUSE_S)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)

    def _ask(self, connection: http.client.HTTPConnection, value: float) -> tuple[int, bytes]:
        body = json.dumps({"instances": [value]}).encode()
        connection.request("POST", f"/v1/models/{self._model}:predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def _take(self, place: int, value: float, status: int, body: bytes, took_s: float) -> None:
        expected = [{"predictions": [value / 2 + addend]} for addend in self._addends]
        with self._lock:
            if status == 200 and json.loads(body) in expected:
                self._counts[place] += 1
            else:
                self.wrong.append(f"{status} {body.decode(errors='replace')}")
            self.slowest_s = max(self.slowest_s, took_s)

    def __enter__(self) -> Bystander:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S + 5)
