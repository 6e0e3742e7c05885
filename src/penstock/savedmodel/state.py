"""Whether calling a signature changes something that outlives the call (DESIGN.md 9).

Guarantees: only what the outputs of a signature depend on counts, so the sub-graphs that restore, save and initialize
do not. The work is linear in the graph for each distinct set of inputs, and nothing recurses.
Assumes: in a function's body everything runs, because TensorFlow executes stateful nodes there wanted or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock.tensors import Signature

#: Ops that change a variable, a table, a queue or another thing that is there for the next call. Random number
#: generators are left out on purpose: nobody relies on the sequence across calls.
_STATE_OP = re.compile(
    r"""
      Assign(Add|Sub)?(VariableOp)? | AssignVariableXlaConcatND | TPUExecuteAndUpdateVariables
    | (Resource)?StridedSliceAssign
    | (Resource)?CountUpTo
    | (Resource)?Scatter(Nd)?(Update|Add|Sub|Mul|Div|Min|Max)
    | (Resource)?(Sparse)?Apply[A-Z]\w*
    | LookupTable(Insert|Import|Remove)(V2)?
    | Queue(Enqueue|EnqueueMany|Dequeue|DequeueMany|DequeueUpTo|Close)(V2)?
    | Stack(Push|Pop|Close)(V2)?
    | Barrier(InsertMany|TakeMany|Close)
    | (Resource)?(Sparse)?Accumulator(ApplyGradient|TakeGradient|SetGlobalStep)
    | Stage | StageClear | Unstage | (Ordered)?Map(Stage|Clear|Unstage|UnstageNoKey)
    | Iterator(GetNext|GetNextSync|GetNextAsOptional) | MultiDeviceIteratorGetNextFromShard
    | Reader(Read|ReadUpTo|Reset|RestoreState)(V2)?
    | BoostedTrees(Update\w+|CenterBias|FlushQuantileSummaries|QuantileStreamResource(AddSummaries|Flush))
    | Write\w*Summary | WriteFile | Save | SaveV2 | SaveSlices
    """,
    re.VERBOSE,
)


def find_state(graph: Any, signatures: Mapping[str, Signature]) -> str:
    """ "OP in signature NAME" for the first signature that changes state, or an empty text where none does."""
    search = _Search(graph)
    for name, signature in signatures.items():
        op = search.state_op_of(signature)
        if op is not None:
            return f"{op} in signature {name!r}"
    return ""


class _Search:
    """One pass over a graph. Finding ends it, so whatever was seen before has been found clean."""

    def __init__(self, graph: Any) -> None:
        self._nodes = {node.name: node for node in graph.node}
        self._functions = {function.signature.name: function for function in graph.library.function}
        self._clean_functions: set[str] = set()
        #: A fed tensor cuts the graph, so what was seen holds only for signatures with the same inputs.
        self._clean_nodes: dict[frozenset[str], set[str]] = {}

    def state_op_of(self, signature: Signature) -> str | None:
        fed = frozenset(_with_port(spec.tensor) for spec in signature.inputs.values())
        clean = self._clean_nodes.setdefault(fed, set())
        pending = [spec.tensor for spec in signature.outputs.values()]
        while pending:
            tensor = pending.pop()
            if _with_port(tensor) in fed:
                continue
            name = tensor.removeprefix("^").partition(":")[0]
            node = self._nodes.get(name)
            if node is None or name in clean:
                continue
            clean.add(name)
            op = self._state_op_of_nodes((node,))
            if op is not None:
                return op
            pending.extend(node.input)
        return None

    def _state_op_of_nodes(self, nodes: Iterable[Any]) -> str | None:
        """The first state-changing op among `nodes` and all that runs in the functions they call."""
        pending = [iter(nodes)]
        while pending:
            node = next(pending[-1], None)
            if node is None:
                pending.pop()
                continue
            if _STATE_OP.fullmatch(node.op):
                return str(node.op)
            for name in _called(node):
                if name in self._functions and name not in self._clean_functions:
                    self._clean_functions.add(name)
                    pending.append(iter(self._functions[name].node_def))
        return None


def _with_port(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that a node may call: its op itself, and those in its attributes."""
    yield node.op
    for attr in node.attr:
        value = attr.value
        if value.HasField("func"):
            yield value.func.name
        elif value.HasField("list"):
            yield from (func.name for func in value.list.func)
