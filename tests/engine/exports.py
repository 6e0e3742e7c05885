"""Exports the SavedModels that the engine tests run. A program of its own, so that the tests' process has no TensorFlow.

`python exports.py FOLDER` writes FOLDER/NAME for each model below.
"""

# TensorFlow has no types: its classes and decorators are Any.
# mypy: disable-error-code="misc,untyped-decorator"
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

#: The element types that TensorFlow's Identity runs on a CPU.
ECHO_TYPES = (
    *("float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64", "bool", "bfloat16"),
    *("uint16", "complex128", "float16", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4"),
)


class Arithmetic(tf.Module):
    """y = x / 2 + 2; several inputs and outputs; ops that fail on demand."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus_two(self, x: Any) -> dict[str, Any]:
        return {"y": x * 0.5 + 2.0}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.float32, name="a"), tf.TensorSpec([None, None], tf.float32, name="b")]
    )
    def many(self, a: Any, b: Any) -> dict[str, Any]:
        return {"difference": a - b, "product": tf.matmul(a, b, transpose_b=True), "rows": tf.shape(a)[0]}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def scalar(self, x: Any) -> dict[str, Any]:
        return {"y": x + 1.0}

    @tf.function(input_signature=[])
    def constant(self) -> dict[str, Any]:
        return {"y": tf.fill([300, 300], 7.0), "text": tf.constant(["a", "b" * 100])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x"), tf.TensorSpec([], tf.int32, name="index")])
    def element(self, x: Any, index: Any) -> dict[str, Any]:
        return {"y": tf.gather(x, index)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="steps")])
    def count(self, steps: Any) -> dict[str, Any]:
        total = tf.while_loop(lambda i: i < steps, lambda i: (i + 1,), (tf.constant(0, tf.int64),), parallel_iterations=1)
        return {"total": total[0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def shout(self, x: Any) -> dict[str, Any]:
        return {"y": tf.strings.join([x, "!"]), "length": tf.strings.length(x)}


class Echo(tf.Module):
    """Each element type, in and out, in tensors of `shape`."""

    def __init__(self, shape: list[None] | None) -> None:
        super().__init__()
        self.by_type = {name: self._signature(tf.as_dtype(name), shape) for name in ECHO_TYPES}

    @staticmethod
    def _signature(dtype: Any, shape: list[None] | None) -> Any:
        @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="x")])
        def echo(x: Any) -> dict[str, Any]:
            return {"y": tf.raw_ops.Identity(input=x)}

        return echo


class Stateful(tf.Module):
    """Keeps an input between calls, and a string."""

    def __init__(self) -> None:
        super().__init__()
        self.number = tf.Variable(tf.zeros([65536]))
        self.text = tf.Variable(tf.constant(["nothing"]), shape=[None])

    @tf.function(
        input_signature=[tf.TensorSpec([65536], tf.float32, name="number"), tf.TensorSpec([None], tf.string, name="text")]
    )
    def put(self, number: Any, text: Any) -> dict[str, Any]:
        self.number.assign(number)
        self.text.assign(text)
        return {"size": tf.size(number)}

    @tf.function(input_signature=[])
    def increase(self) -> dict[str, Any]:
        return {"first": self.number.assign_add(tf.ones([65536]))[0]}

    @tf.function(input_signature=[])
    def get(self) -> dict[str, Any]:
        return {"number": self.number.read_value(), "text": self.text.read_value()}


class Tables(tf.Module):
    """A lookup table that an asset file fills, as Keras's preprocessing layers have."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.asset = tf.saved_model.Asset(str(vocabulary))
        initializer = tf.lookup.TextFileInitializer(
            self.asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def look_up(self, word: Any) -> dict[str, Any]:
        return {"index": self.table.lookup(word)}


def export_tensorflow_1(folder: Path, vocabulary: Path) -> None:
    """A graph of placeholders: a table with an asset, an output that is an input, a tensor that serves two outputs."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        table = tf.lookup.StaticHashTable(initializer, -1)
        x = v1.placeholder(tf.float32, [None], name="x")
        offset = v1.get_variable("offset", initializer=tf.constant(10.0), use_resource=False)
        y = x + offset
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        infos = v1.saved_model.utils.build_tensor_info
        define = v1.saved_model.signature_def_utils.build_signature_def
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            [v1.saved_model.tag_constants.SERVING],
            signature_def_map={
                "look_up": define({"word": infos(words)}, {"index": infos(table.lookup(words)), "word": infos(words)}),
                "twice": define({"x": infos(x)}, {"first": infos(y), "second": infos(y), "x": infos(x)}),
                "only_echo": define({"x": infos(x)}, {"x": infos(x)}),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()


def main(folder: Path) -> None:
    arithmetic, echo, rows, stateful = Arithmetic(), Echo(None), Echo([None, None]), Stateful()
    names = ("half_plus_two", "many", "scalar", "constant", "element", "count", "shout")
    signatures = {name: getattr(arithmetic, name) for name in names}
    tf.saved_model.save(arithmetic, folder / "arithmetic", {"serving_default": arithmetic.half_plus_two, **signatures})
    tf.saved_model.save(echo, folder / "echo", echo.by_type)
    tf.saved_model.save(rows, folder / "rows", rows.by_type)
    signatures = {"put": stateful.put, "increase": stateful.increase, "get": stateful.get}
    tf.saved_model.save(stateful, folder / "stateful", signatures)
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("zero\none\ntwo\n")
    tables = Tables(vocabulary)
    tf.saved_model.save(tables, folder / "tables", {"look_up": tables.look_up})
    export_tensorflow_1(folder / "tensorflow_1", vocabulary)
    vocabulary.unlink()  # what is loaded must come from the models' own assets


if __name__ == "__main__":
    main(Path(sys.argv[1]))
