"""InvokeEndpointAsync of SageMaker's runtime API, with files instead of S3 (contract §9.2).

Guarantees: nothing is read outside `allowed_root` and nothing written outside it and `output_folder`, whatever links there
are: a path is resolved when the request comes, and what is opened later follows no link. An output appears whole or not at
all. Requests that wait are bounded in number, and their inputs stay on disk until their turn comes.

Assumes that the folders are on a local disk. The queue is this process's: it ends with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import orjson

from penstock.api.router import Handler
from penstock.api.sagemaker_runtime import fault, invocation_head, request_id_field
from penstock.errors import InvalidArgument
from penstock.observe.log import get_logger
from penstock.wire.head import Head
from penstock.wire.request import Request, Response

log = get_logger("api.async_invocations")

_T = TypeVar("_T")
_PATH = re.compile(r"/endpoints/(?P<endpoint>[^/]+)/async-invocations")
# The patterns of AWS's API, which its clients leave to the server to check.
_FILENAME = re.compile(r"(?!.*\..*\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_EXTENSION = re.compile(r"(?!s3:|https:)[A-Za-z0-9!_.*'()/-]{1,512}")
_MAX_INLINE_BYTES = 128_000
_PREFIX = b"x-amzn-sagemaker-"


@dataclass(frozen=True, slots=True)
class _File:
    """A place for a file: `folder`, which is resolved, is `root` or below it."""

    root: Path
    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def read(self, max_bytes: int) -> bytes:
        """The content. Raises OSError, and InvalidArgument for what is no plain file or too large."""
        with self._opened_folder(makes=False) as folder:
            # Without O_NONBLOCK, opening a pipe would wait for its other end.
            fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgument(f"{self.path} is not a plain file.")
            if status.st_size > max_bytes:
                raise InvalidArgument(f"{self.path} has {status.st_size} bytes; at most {max_bytes} are accepted.")
            with open(fd, "rb", closefd=False) as file:
                return file.read(status.st_size)
        finally:
            os.close(fd)

    def write(self, content: bytes) -> None:
        """Makes the file, or replaces it, by a rename. Raises OSError."""
        scratch = f".{uuid.uuid4().hex}.part"
        with self._opened_folder(makes=True) as folder:
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
            try:
                with open(fd, "wb") as file:
                    file.write(content)
                os.rename(scratch, self.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(scratch, dir_fd=folder)
                raise

    def remove(self) -> None:
        """Removes the file where there is one. Raises OSError."""
        with suppress(FileNotFoundError), self._opened_folder(makes=False) as folder:
            os.unlink(self.name, dir_fd=folder)

    @contextmanager
    def _opened_folder(self, *, makes: bool) -> Iterator[int]:
        """The folder, opened step by step from the root. Raises OSError where a link has come into the way."""
        if makes:
            self.root.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in self.folder.relative_to(self.root).parts:
                if makes:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class _Job:
    """A request that has been accepted. `input` is a file, or the bytes that came with it."""

    endpoint: str
    id: bytes
    head: Head
    input: _File | bytes
    output: _File
    failure: _File
    expires_s: float
    timeout_s: int


class AsyncInvocations:
    """InvokeEndpointAsync. `invoke` is `SageMakerRuntime.invoke`; without `allowed_root`, every request is refused.

    Outputs go into `output_folder`, else beside their inputs as `<input>.out`; what failed, into `….error`. Of older files
    with these names nothing is left once a request is accepted. An invocation may take as long as the request says, and no
    longer than other requests to the server.
    """

    def __init__(
        self,
        invoke: Callable[[str, Request], None],
        *,
        allowed_root: Path | None,
        output_folder: Path | None = None,
        max_input_bytes: int = 256 << 20,
        max_queued: int = 1000,
        max_running: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._invoke = invoke
        self._root = None if allowed_root is None else allowed_root.resolve()
        self._output_folder = None if output_folder is None else output_folder.resolve()
        self._max_input_bytes = max_input_bytes
        self._max_queued = max_queued
        self._max_running = max_running
        self._clock = clock
        self._queue: deque[_Job] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="async-invocations")

    def match(self, method: str, path: str) -> Handler | None:
        found = _PATH.fullmatch(path)
        return partial(self._accept, unquote(found["endpoint"])) if found and method == "POST" else None

    def close(self) -> None:
        """Drops what waits, and lets the disk finish what it is at."""
        self._queue.clear()
        for task in self._running:
            task.cancel()
        self._disk.shutdown()

    def _accept(self, endpoint: str, request: Request) -> None:
        inference_id = request.head.field(_PREFIX + b"inference-id") or str(uuid.uuid4())
        try:
            job = self._job(endpoint, request)
            if len(self._queue) >= self._max_queued:
                response = fault("ServiceUnavailable", f"{len(self._queue)} asynchronous requests are waiting. Try again.")
            else:
                job.output.remove()
                job.failure.remove()
                self._queue.append(job)
                self._start()
                response = Response(202, orjson.dumps({"InferenceId": inference_id}), fields=_locations(job))
        except InvalidArgument as error:
            response = fault("ValidationError", error.message)
        except OSError as error:
            response = fault("ValidationError", f"The place of the output cannot be used: {error.strerror}.")
        response.fields += request_id_field(request)
        request.answer(response)

    def _job(self, endpoint: str, request: Request) -> _Job:
        """What a request asks for. Raises InvalidArgument."""
        root, head = self._root, request.head
        if root is None:
            raise InvalidArgument(
                "Asynchronous invocations are off: start the server with --async-root and the folder that inputs may be in."
            )
        location = head.field(_PREFIX + b"inputlocation")
        if (location is None) == (not request.body):
            raise InvalidArgument("Expected either InputLocation or a body.")
        if len(request.body) > _MAX_INLINE_BYTES:
            raise InvalidArgument(f"The body has more than {_MAX_INLINE_BYTES} bytes: put it into a file, for InputLocation.")
        named = None if location is None else _path_of(location)
        source = request.body if named is None else self._input(root, named)
        output, failure = self._outputs(root, named, head)
        if isinstance(source, _File) and source.path in (output.path, failure.path):
            raise InvalidArgument(f"The output would take the place of the input, {source.path}.")
        wait_s = _seconds(head, "RequestTTLSeconds", 60, 21_600, 21_600)
        timeout_s = _seconds(head, "InvocationTimeoutSeconds", 1, 3_600, 900)
        return _Job(endpoint, request.id, head, source, output, failure, self._clock() + wait_s, timeout_s)

    @staticmethod
    def _input(root: Path, named: Path) -> _File:
        resolved = _resolve(root, named, "InputLocation")
        if not os.path.isfile(resolved):  # Path.is_file raises where a folder may not be read
            raise InvalidArgument(f"InputLocation {named}: there is no such file.")
        return _File(root, resolved.parent, resolved.name)

    def _outputs(self, root: Path, named: Path | None, head: Head) -> tuple[_File, _File]:
        """Where the output goes, and what is written when there is none."""
        if self._output_folder is not None:
            root = folder = self._output_folder
        else:
            folder = root if named is None else named.parent
        extension = head.field(_PREFIX + b"s3outputpathextension")
        if extension is not None:
            if not _EXTENSION.fullmatch(extension):
                raise InvalidArgument(f"S3OutputPathExtension {extension} is not the path of a folder.")
            folder = folder / extension.strip("/")
        folder = _resolve(root, folder, "the output")
        filename = head.field(_PREFIX + b"filename")
        if filename is not None:
            if not _FILENAME.fullmatch(filename):
                raise InvalidArgument(f"Filename {filename} is not a name: expected up to 32 letters, digits, '-', '_', one '.'.")
            return _File(root, folder, filename), _File(root, folder, filename + ".error")
        stem = named.name if named is not None and self._output_folder is None else str(uuid.uuid4())
        return _File(root, folder, stem + ".out"), _File(root, folder, stem + ".error")

    def _start(self) -> None:
        """Runs what waits, as long as there is room."""
        while self._queue and len(self._running) < self._max_running:
            task = asyncio.get_running_loop().create_task(self._run(self._queue.popleft()))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._start()

    async def _run(self, job: _Job) -> None:
        try:
            response = await self._answer(job)
        except InvalidArgument as error:
            response = fault("ValidationError", error.message)
        except OSError as error:
            response = fault("ValidationError", f"The input cannot be read: {error.strerror}.")
        except Exception:
            log.exception("asynchronous request %s failed inside", job.id.decode())
            response = fault("InternalFailure", "Internal error; the server's log has the rest.")
        place = job.output if response.status < 300 else job.failure
        try:
            await self._on_disk(partial(place.write, response.body))
        except OSError as error:
            log.error("the outcome of asynchronous request %s cannot be written to %s: %s", job.id.decode(), place.path, error)

    async def _answer(self, job: _Job) -> Response:
        """What comes of a job. Raises InvalidArgument and OSError where its input cannot be read."""
        if self._clock() > job.expires_s:
            return fault("ServiceUnavailable", "The request waited for longer than its RequestTTLSeconds.")
        body = job.input
        if isinstance(body, _File):
            body = await self._on_disk(partial(body.read, self._max_input_bytes))
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        request = Request(_head_for(job.head, body), body, _Waiting(answer), time.monotonic_ns(), job.id)
        self._invoke(job.endpoint, request)
        try:
            return await asyncio.wait_for(answer, job.timeout_s)
        except asyncio.TimeoutError:
            return fault("ModelError", f"The model has not answered within InvocationTimeoutSeconds, {job.timeout_s} s.")

    async def _on_disk(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)


class _Waiting:
    """The writer of a request that a job makes: keeps the first answer."""

    __slots__ = ("_answer",)

    def __init__(self, answer: asyncio.Future[Response]) -> None:
        self._answer = answer

    def answered(self, request: Request, response: Response) -> None:
        if not self._answer.done():
            self._answer.set_result(response)


def _head_for(head: Head, body: bytes) -> Head:
    """The head that a request to the endpoint would have had."""
    return invocation_head(
        head,
        {
            b"content-type": head.fields.get(_PREFIX + b"content-type"),
            b"accept": head.fields.get(_PREFIX + b"accept"),
            b"content-length": b"%d" % len(body),
            b"content-encoding": None,
            b"transfer-encoding": None,
        },
    )


def _path_of(location: str) -> Path:
    """The path of a file:// URL. Raises InvalidArgument."""
    try:
        url = urlsplit(location)
        path = Path(unquote(url.path))
    except ValueError:
        raise InvalidArgument(f"InputLocation {location} is not a URL.") from None
    if url.scheme != "file" or url.netloc not in ("", "localhost") or url.query or url.fragment or not path.is_absolute():
        raise InvalidArgument(
            f"InputLocation {location}: expected file:///… and the path of a file; this server reads no other. "
            "The AWS CLI puts a file's content in the place of file:///…: use file:/… there."
        )
    return path


def _resolve(root: Path, path: Path, what: str) -> Path:
    """`path` without links. Raises InvalidArgument where it is not `root` or below."""
    try:
        resolved = path.resolve()
    except (OSError, ValueError, RuntimeError):
        raise InvalidArgument(f"{what}: {path} is not a path that can be used.") from None
    if not resolved.is_relative_to(root):
        raise InvalidArgument(f"{what}: {path} is not below {root}.")
    return resolved


def _seconds(head: Head, name: str, lowest: int, highest: int, default: int) -> int:
    """A header's whole number of seconds. Raises InvalidArgument."""
    text = head.field(_PREFIX + name.lower().encode())
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not lowest <= int(text) <= highest:
        raise InvalidArgument(f"{name} {text}: expected seconds from {lowest} to {highest}.")
    return int(text)


def _locations(job: _Job) -> bytes:
    return b"%boutputlocation: %b\r\n%bfailurelocation: %b\r\n" % (
        _PREFIX,
        job.output.path.as_uri().encode(),
        _PREFIX,
        job.failure.path.as_uri().encode(),
    )
