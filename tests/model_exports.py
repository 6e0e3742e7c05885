"""What the tests' models compute. Run as a program, in a process of its own, it exports them all: importing TensorFlow takes 4 s.

Each function makes one model folder. Guarantees: no random weights, so that the same source gives the same answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

#: Element types of the model `dtypes`, which has a signature for each.
DTYPES = (
    *("float", "double", "half", "bfloat16", "float8_e5m2", "float8_e4m3fn"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int4", "uint4"),
    *("bool", "string", "complex64", "complex128"),
)
VOCABULARY = ("cat", "dog", "bird")
_TF_NAMES = {"float": "float32", "double": "float64", "half": "float16"}

Export = Callable[[Any, Path], None]
EXPORTS: dict[str, Export] = {}


def _model(export: Export) -> Export:
    EXPORTS[export.__name__] = export
    return export


def _save(tf: Any, folder: Path, version: int = 1, module: Any = None, **functions: Any) -> None:
    """Saves functions as signatures; each is (function, the specs of its inputs by name)."""
    module = module or tf.Module()
    signatures = {}
    for name, (function, specs) in functions.items():
        named = {alias: tf.TensorSpec(shape, dtype, alias) for alias, (shape, dtype) in specs.items()}
        signatures[name] = tf.function(function).get_concrete_function(**named)
    # A function that is not reachable from the module would lose what it captures.
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(folder / str(version)), signatures=signatures)


def _half_plus(tf: Any, folder: Path, version: int, addend: float) -> None:
    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(addend)
    _save(
        tf,
        folder,
        version,
        module,
        serving_default=(lambda x: {"y": module.a * x + module.b}, {"x": ([None], tf.float32)}),
    )


@_model
def half_plus_two(tf: Any, folder: Path) -> None:
    _half_plus(tf, folder, 1, 2.0)


@_model
def two_versions(tf: Any, folder: Path) -> None:
    """Version 1 adds two, version 2 adds three."""
    _half_plus(tf, folder, 1, 2.0)
    _half_plus(tf, folder, 2, 3.0)


@_model
def mixed(tf: Any, folder: Path) -> None:
    """Three inputs and two outputs of different types."""

    def run(count: Any, name: Any, weights: Any) -> Any:
        total = tf.cast(count, tf.float32) * tf.reduce_sum(weights, axis=1)
        return {"label": tf.strings.join([name, tf.strings.as_string(count)], separator="-"), "total": total}

    inputs = {"count": ([None], tf.int32), "name": ([None], tf.string), "weights": ([None, 2], tf.float32)}
    _save(tf, folder, serving_default=(run, inputs))


@_model
def strings(tf: Any, folder: Path) -> None:
    """`serving_default` gives text, `binary` an output whose name asks for base64."""
    inputs = {"text": ([None], tf.string)}
    _save(
        tf,
        folder,
        serving_default=(lambda text: {"upper": tf.strings.upper(text)}, inputs),
        binary=(lambda text: {"image_bytes": tf.identity(text)}, inputs),
    )


@_model
def dtypes(tf: Any, folder: Path) -> None:
    """A signature for each element type: its input as it came."""
    functions = {
        name: (lambda x: {"y": tf.identity(x)}, {"x": (None, tf.as_dtype(_TF_NAMES.get(name, name)))}) for name in DTYPES
    }
    _save(tf, folder, 1, None, **functions)


@_model
def scalar(tf: Any, folder: Path) -> None:
    _save(tf, folder, serving_default=(lambda x: {"y": 2.0 * x}, {"x": ([], tf.float32)}))


@_model
def image(tf: Any, folder: Path) -> None:
    """Large tensors both ways: the picture, inverted."""
    _save(tf, folder, serving_default=(lambda x: {"y": 1.0 - x}, {"x": ([None, 224, 224, 3], tf.float32)}))


@_model
def batch_mean(tf: Any, folder: Path) -> None:
    """Mixes rows: what a row gives depends on the others that it is run with."""

    def run(x: Any) -> Any:
        return {"y": x - tf.reduce_mean(x, axis=0, keepdims=True)}

    _save(tf, folder, serving_default=(run, {"x": ([None, 3], tf.float32)}))


@_model
def no_batch(tf: Any, folder: Path) -> None:
    """An output without a batch dimension: said by the signature, and (`hidden`) found out only when it has run."""

    def total(x: Any) -> Any:
        return {"y": x + 1.0, "total": tf.reduce_sum(x)}

    def hidden(x: Any) -> Any:
        no_dimensions = tf.fill([tf.size(x) * 0], 1)
        return {"total": tf.reshape(tf.reduce_sum(x), no_dimensions)}

    inputs = {"x": ([None], tf.float32)}
    _save(tf, folder, serving_default=(total, inputs), hidden=(hidden, inputs))


@_model
def checked(tf: Any, folder: Path) -> None:
    """Fails while it runs: for indices above 2, and with a message of its own for negative ones."""

    def run(index: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_non_negative(index, message="index must not be negative")]):
            return {"value": tf.gather(tf.constant([10.0, 20.0, 30.0]), index)}

    _save(tf, folder, serving_default=(run, {"index": ([None], tf.int32)}))


@_model
def examples(tf: Any, folder: Path) -> None:
    """Classify and regress over serialized tf.Examples with a number `x` and a text `name`."""
    features = {"x": tf.io.FixedLenFeature([], tf.float32), "name": tf.io.FixedLenFeature([], tf.string, "nobody")}

    def classify(inputs: Any) -> Any:
        parsed = tf.io.parse_example(inputs, features)
        scores = tf.stack([parsed["x"], 1.0 - parsed["x"]], axis=1)
        return {"classes": tf.stack([parsed["name"], tf.fill(tf.shape(parsed["x"]), "other")], axis=1), "scores": scores}

    def regress(inputs: Any) -> Any:
        return {"outputs": tf.expand_dims(tf.io.parse_example(inputs, features)["x"] * 0.5 + 2.0, 1)}

    inputs = {"inputs": ([None], tf.string)}
    predict = (lambda x: {"y": x * 0.5 + 2.0}, {"x": ([None], tf.float32)})
    _save(tf, folder, serving_default=(classify, inputs), regress=(regress, inputs), predict=predict)


@_model
def vocabulary(tf: Any, folder: Path) -> None:
    """A lookup table that is read from an asset; -1 for what is not in it."""
    file = folder.with_name("words.txt")
    file.write_text("\n".join(VOCABULARY) + "\n")
    whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(file), tf.string, whole, tf.int64, number), -1)
    _save(
        tf, folder, 1, module, serving_default=(lambda words: {"ids": module.table.lookup(words)}, {"words": ([None], tf.string)})
    )
    file.unlink()


@_model
def counter(tf: Any, folder: Path) -> None:
    """Stateful: `serving_default` adds to a variable that lives between calls."""
    module = tf.Module()
    module.count = tf.Variable(0, dtype=tf.int64)
    _save(
        tf,
        folder,
        1,
        module,
        serving_default=(lambda by: {"count": module.count.assign_add(by)}, {"by": ([], tf.int64)}),
        read=(lambda: {"count": module.count.read_value()}, {}),
    )


def _busy(tf: Any, seconds: Any) -> Any:
    """An operation that takes `seconds`."""
    end = tf.timestamp() + seconds
    return tf.while_loop(lambda now: now < end, lambda now: tf.maximum(now, tf.timestamp()), [tf.timestamp()])[0]


@_model
def slow(tf: Any, folder: Path) -> None:
    """Takes as many milliseconds as its largest input says."""

    def run(milliseconds: Any) -> Any:
        with tf.control_dependencies([_busy(tf, tf.cast(tf.reduce_max(milliseconds), tf.float64) / 1000.0)]):
            return {"took": tf.identity(milliseconds)}

    _save(tf, folder, serving_default=(run, {"milliseconds": ([None], tf.int32)}))


@_model
def heavy(tf: Any, folder: Path) -> None:
    """Takes 5 ms, whatever its input."""

    def run(x: Any) -> Any:
        with tf.control_dependencies([_busy(tf, tf.constant(0.005, tf.float64))]):
            return {"y": tf.identity(x)}

    _save(tf, folder, serving_default=(run, {"x": ([None], tf.float32)}))


@_model
def slow_counter(tf: Any, folder: Path) -> None:
    """Stateful and slow: counts after as many milliseconds as asked."""
    module = tf.Module()
    module.count = tf.Variable(0, dtype=tf.int64)

    def run(milliseconds: Any) -> Any:
        with tf.control_dependencies([_busy(tf, tf.cast(milliseconds, tf.float64) / 1000.0)]):
            return {"count": module.count.assign_add(1)}

    _save(tf, folder, 1, module, serving_default=(run, {"milliseconds": ([], tf.int32)}))


@_model
def deadly(tf: Any, folder: Path) -> None:
    """Its process dies when it is asked for a negative number."""

    def die(x: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="told to")]):
            return tf.identity(x)

    def run(x: Any) -> Any:
        return {"y": tf.cond(tf.reduce_min(x) < 0.0, lambda: die(x), lambda: x + 1.0)}

    _save(tf, folder, serving_default=(run, {"x": ([None], tf.float32)}))


@_model
def stillborn(tf: Any, folder: Path) -> None:
    """Its process dies while the model is loaded."""

    class Death(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self) -> None:
            with tf.control_dependencies([tf.raw_ops.Abort(error_msg="told to")]):
                tf.raw_ops.LookupTableImportV2(table_handle=self.resource_handle, keys=["a"], values=tf.constant([1], tf.int64))

    # Saving must not run the initializer here.
    module = tf.Module()
    with tf.Graph().as_default():
        module.death = Death()

    def run(x: Any) -> Any:
        found = tf.raw_ops.LookupTableSizeV2(table_handle=module.death.resource_handle)
        return {"y": x + tf.cast(found, tf.float32)}

    _save(tf, folder, 1, module, serving_default=(run, {"x": ([None], tf.float32)}))


@_model
def truncated(tf: Any, folder: Path) -> None:
    """Its graph ends in the middle."""
    _half_plus(tf, folder, 1, 2.0)
    graph = folder / "1" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1000])


@_model
def without_variables(tf: Any, folder: Path) -> None:
    """A shard of its variables is missing."""
    _half_plus(tf, folder, 1, 2.0)
    (folder / "1" / "variables" / "variables.data-00000-of-00001").unlink()


@_model
def unknown_op(tf: Any, folder: Path) -> None:
    """Needs an operation that TensorFlow does not have."""
    _save(tf, folder, serving_default=(lambda x: {"y": tf.math.erfinv(x)}, {"x": ([None], tf.float32)}))
    graph = folder / "1" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"Erfinv", b"Frobni"))


@_model
def keras_files(tf: Any, folder: Path) -> None:
    """The same network, y = 2 (x1 + x2), as dense.keras and dense.h5."""
    import keras

    folder.mkdir()
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(2.0))])
    network.save(folder / "dense.keras")
    network.save(folder / "dense.h5")


def main(target: Path) -> None:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    for name, export in EXPORTS.items():
        export(tf, target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
