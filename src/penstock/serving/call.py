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


class Results:
    """What a run gave to its `requests`: `outputs` over the rows of all of them.

    `is_finite` promises that there is no NaN and no infinity in them. `row_texts` is for an API that encodes all rows at once.
    `variant` says which answered, where a version has several.
    """

    __slots__ = ("is_finite", "outputs", "requests", "row_texts", "variant")

    def __init__(self, outputs: dict[str, Array], requests: int = 1, is_finite: bool = False, variant: str = "") -> None:
        self.outputs = outputs
        self.requests = requests
        self.is_finite = is_finite
        self.row_texts: list[bytes] | None = None
        self.variant = variant


class Call:
    """A request on its way through a gateway.

    `inputs` are in the signature's order, `outputs` names those that are wanted (None: all). `rows` is the common first
    dimension where rows may be added to it, else WHOLE. When it is over, `error` is set, or `results`, in which its rows begin at
    `first_row`; and `ended` is called once: what comes then is the API's, in a class of its own. `*_ns` are on the monotonic
    clock.
    """

    __slots__ = (
        "attempts",
        "batch_rows",
        "deadline_ns",
        "decoded_ns",
        "error",
        "first_row",
        "infer_ns",
        "inputs",
        "is_finished",
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
        self.results = _NO_RESULTS
        self.first_row = 0
        self.error: PenstockError | None = None
        self.decoded_ns = time.monotonic_ns()
        self.started_ns = self.infer_ns = self.batch_rows = 0

    def finish(self, results: Results, first_row: int = 0) -> None:
        """Ends the call with its outputs; a call that has ended stays as it is."""
        if not self.is_finished:
            self.is_finished = True
            self.results = results
            self.first_row = first_row
            self.ended()

    def own_outputs(self) -> dict[str, Array]:
        """The outputs of this call alone."""
        results = self.results
        if results.requests == 1:
            return results.outputs
        first, end = self.first_row, self.first_row + self.rows
        return {name: array[first:end] for name, array in results.outputs.items()}

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
            self.finish(_NO_RESULTS)


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a script is called with: the body, and the header lines that are its business."""

    body: bytes | memoryview
    content_type: str
    accept: str
    attributes: str
    model_name: str | None
    model_version: str | None
    method: str | None
    request_id: str


_NO_RESULTS = Results({})
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
