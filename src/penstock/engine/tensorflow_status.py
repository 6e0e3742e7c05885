"""TF_Status as exceptions."""

from __future__ import annotations

from penstock.engine.tensorflow_library import CData, Library, ffi
from penstock.errors import from_code

#: Longer messages lose their middle: TensorFlow repeats whole call stacks and tensors in some.
MAX_MESSAGE = 2000


class Status:
    """One TF_Status, freed with its owner. For one thread at a time; calls that take `pointer` overwrite it."""

    __slots__ = ("_code", "_text", "pointer")

    def __init__(self, library: Library) -> None:
        framework = library.framework
        self.pointer: CData = ffi.gc(framework.TF_NewStatus(), framework.TF_DeleteStatus)
        self._code = framework.TF_GetCode
        self._text = framework.TF_Message

    def check(self, place: str = "") -> None:
        """Raises the error that the last call left, if any; `place` comes before its message."""
        if self._code(self.pointer):
            raise from_code(self._code(self.pointer), place + readable(self.message))

    @property
    def message(self) -> str:
        """What TensorFlow says; empty where nothing is wrong."""
        text: bytes = ffi.string(self._text(self.pointer))
        return text.decode(errors="replace")


def readable(message: str) -> str:
    """TensorFlow's message without the places in its own code, and of bounded length.

    Of the chain of nodes at the end (`[[{{node a}}]]`, then each caller) the innermost stays: it names the op.
    """
    lines = message.split("\n")
    nodes = [index for index, line in enumerate(lines) if line.lstrip().startswith("[[")]
    kept = [line for index, line in enumerate(lines) if index not in nodes[1:]]
    text = "\n".join(kept).strip()
    if len(text) > MAX_MESSAGE:
        half = (MAX_MESSAGE - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text
