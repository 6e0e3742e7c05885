"""MultiInference: several signatures of one version over the same examples, in one call (contract §2.1).

Unlike there, each signature may have an input tensor of its own, as those that TensorFlow 2 exports have.

Guarantees: the call is answered once: with all results in the order of the tasks, or with the first error, whereupon the other
tasks are given up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from penstock.api.inference import Inference, Prepared
from penstock.api.tfs_signatures import METHODS, error_reply, examples_signature, feed, find
from penstock.codec.tfs_examples_proto import (
    Task,
    check_examples,
    decode_multi_inference,
    encode_result,
    encode_task_result,
)
from penstock.codec.tfs_proto import encode_model_spec
from penstock.errors import InvalidArgument, PenstockError, Unimplemented
from penstock.serving.call import Call
from penstock.tensors import Array
from penstock.wire.grpc import Buffer, GrpcCall, Reply

_API = "tfs_grpc:multi_inference"


class MultiInference:
    """Starts them. The version is the one that the first task names."""

    def __init__(self, inference: Inference, checks_method_name: bool) -> None:
        self._inference = inference
        self._checks_method_name = checks_method_name

    def start(self, call: GrpcCall) -> None:
        """Begins a call; its answer follows when all signatures have run."""
        try:
            tasks, examples = decode_multi_inference(call.message)
            _check(tasks)
        except PenstockError as error:
            self._inference.refuse(call, _API, error_reply, error)
            return
        parts = _Parts(call, len(tasks))
        for index, task in enumerate(tasks):
            if call.is_over:
                return
            decode = partial(self._decode, tasks[0], task, examples)
            self._inference.start(parts.asked(index), _API, decode, error_reply)

    def _decode(self, first: Task, task: Task, examples: Array, _: object) -> Prepared[Reply]:
        servable = find(self._inference.routes, first.choice)
        method = METHODS[task.method_name]
        unknown = "Requested signature not found in model graph"
        signature = examples_signature(servable, method, task.choice.signature_name, unknown, self._checks_method_name)
        check_examples(examples)
        inputs = feed(signature, {"inputs": examples})
        return servable, signature, inputs, None, partial(_encode, method, len(examples))


class _Asked:
    """One task as `Inference` sees it."""

    __slots__ = ("_answered", "deadline_ns", "first_byte_ns", "id", "is_cancellable", "on_cancel", "read_ns")

    def __init__(self, call: GrpcCall, answered: Callable[[Reply], None]) -> None:
        self.first_byte_ns = call.first_byte_ns
        self.read_ns = call.read_ns
        self.deadline_ns = call.deadline_ns
        self.id = call.id
        self.is_cancellable = True
        self.on_cancel: Callable[[], None] | None = None
        self._answered = answered

    def forget_body(self) -> None:
        """It is the whole call's, and the other tasks may need it still."""

    def answer(self, reply: Reply) -> None:
        self._answered(reply)


class _Parts:
    """The tasks of a call, and what has come of them."""

    def __init__(self, call: GrpcCall, count: int) -> None:
        self._call = call
        self._asked = [_Asked(call, partial(self._answered, index)) for index in range(count)]
        self._results: dict[int, tuple[Buffer, ...]] = {}
        call.on_cancel = self._give_up

    def asked(self, index: int) -> _Asked:
        return self._asked[index]

    def _answered(self, index: int, reply: Reply) -> None:
        if reply.error is not None:
            if not self._call.is_over:
                self._call.fail(reply.error)
                self._give_up()
            return
        self._results[index] = reply.message
        if len(self._results) == len(self._asked):
            self._call.answer(Reply(tuple(part for _, parts in sorted(self._results.items()) for part in parts)))

    def _give_up(self) -> None:
        for asked in self._asked:
            if asked.on_cancel is not None:
                asked.on_cancel()


def _check(tasks: list[Task]) -> None:
    """What can be said before the model is known. Raises InvalidArgument, or Unimplemented for another method."""
    model = tasks[0].choice.name
    seen: set[str] = set()
    for task in tasks:
        name = task.choice.signature_name or "serving_default"
        if not task.choice.name:
            raise InvalidArgument("Found ModelSpec with an empty model name." if model else "ModelSpec has no name specified.")
        if task.choice.name != model:
            raise InvalidArgument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        if name in seen:
            raise InvalidArgument(f"Duplicate evaluation of signature: {name}")
        if task.method_name not in METHODS:
            raise Unimplemented(f"Unsupported signature method_name: {task.method_name}")
        seen.add(name)


def _encode(method: str, example_count: int, call: Call) -> Reply:
    result = encode_result(method, call.signature, call.own_outputs(), example_count)
    servable = call.servable
    spec = encode_model_spec(servable.model, servable.version, call.signature.name)
    return Reply((encode_task_result(method, result, spec),))
