"""One request to a model, the same for every API: arrays in, arrays or an error out, exactly once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.tensors import Array, Signature

if TYPE_CHECKING:
    from penstock.serving.routes import Servable

#: `rows` of a call that has to be run as it is.
WHOLE = -1


class Call:
    """A request on its way through a gateway.

    `inputs` are in the signature's order, `outputs` names those that are wanted (None: all). `rows` is the common first
    dimension where rows may be added to it, else WHOLE. When it is over, `results` or `error` is set, and `ended` is called
    once: what comes then is the API's, in a class of its own. `*_ns` are on the monotonic clock.
    """

    __slots__ = (
        "attempts",
        "batch_rows",
        "deadline_ns",
        "decoded_ns",
        "error",
        "infer_ns",
        "inputs",
        "is_finished",
        "is_finite",
        "outputs",
        "results",
        "rows",
        "servable",
        "signature",
        "started_ns",
    )

    def __init__(
        self,
        servable: Servable,
        signature: Signature,
        inputs: tuple[Array, ...],
        deadline_ns: int,
        outputs: tuple[str, ...] | None = None,
    ) -> None:
        self.servable = servable
        self.signature = signature
        self.inputs = inputs
        self.outputs = outputs
        self.rows = common_rows(inputs) if signature.name in servable.batches else WHOLE
        self.deadline_ns = deadline_ns
        self.attempts = 0
        self.is_finished = False
        self.results: dict[str, Array] = {}
        self.error: PenstockError | None = None
        self.is_finite = False
        self.decoded_ns = time.monotonic_ns()
        self.started_ns = self.infer_ns = self.batch_rows = 0

    def finish(self, results: dict[str, Array]) -> None:
        """Ends the call with its outputs; a call that has ended stays as it is."""
        if not self.is_finished:
            self.is_finished = True
            self.results = results
            self.ended()

    def fail(self, error: PenstockError) -> None:
        """Ends the call with an error; a call that has ended stays as it is."""
        if not self.is_finished:
            self.is_finished = True
            self.error = error
            self.ended()

    def ended(self) -> None:
        """Called once, when the call is over."""
        raise NotImplementedError


class ScriptCall(Call):
    """A request for a servable's script. `body`, `content_type` and `infer_ns` are its answer when it has ended without error."""

    __slots__ = ("content_type", "invocation", "reply")

    def __init__(self, servable: Servable, invocation: Invocation, deadline_ns: int) -> None:
        super().__init__(servable, _NO_SIGNATURE, (), deadline_ns)
        self.invocation = invocation
        self.reply = b""
        self.content_type = ""

    def replied(self, body: bytes, content_type: str) -> None:
        """Ends the call with the script's answer; a call that has ended stays as it is."""
        if not self.is_finished:
            self.reply, self.content_type = body, content_type
            self.finish({})


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a script is called with: the body, and the header lines that are its business."""

    body: bytes
    content_type: str
    accept: str
    attributes: str
    model_name: str | None
    model_version: str | None
    method: str | None
    request_id: str


#: Scripts choose their signature themselves.
_NO_SIGNATURE = Signature("", {}, {}, "")


def common_rows(inputs: tuple[Array, ...]) -> int:
    """The first dimension that all inputs share, WHOLE where there is none or it is 0."""
    if len(inputs) == 1:
        shape = inputs[0].shape
        return (shape[0] or WHOLE) if shape else WHOLE
    rows = WHOLE
    for array in inputs:
        shape = array.shape
        if not shape or shape[0] == 0 or (rows != WHOLE and shape[0] != rows):
            return WHOLE
        rows = shape[0]
    return rows
