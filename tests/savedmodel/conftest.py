"""Models to read: those of other people where they are there, and one exported with TensorFlow for the whole session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

_THIRD_PARTY = Path(__file__).parents[2].parent / "shared" / "models"


@pytest.fixture(scope="session")
def third_party_models() -> Path:
    if not _THIRD_PARTY.is_dir():
        pytest.skip("the third-party models are not there")
    return _THIRD_PARTY


@pytest.fixture(scope="session")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def exported(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder whose signatures show what counts as state and what does not."""
    folder = tmp_path_factory.mktemp("exported") / "zoo" / "1"
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "words.txt"
    vocabulary.write_text("one\ntwo\n")

    class Zoo(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(2.0)
            self.calls = tf.Variable(0)
            self.table = tf.lookup.StaticVocabularyTable(
                tf.lookup.TextFileInitializer(
                    str(vocabulary),
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                num_oov_buckets=1,
            )

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])  # type: ignore[untyped-decorator]
        def scale(self, x: Any) -> Any:
            loop = tf.while_loop(lambda i, _: i < 3, lambda i, total: (i + 1, total + x), (0, x))[1]
            return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: loop * self.weight, lambda: loop)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])  # type: ignore[untyped-decorator]
        def look_up(self, words: Any) -> Any:
            return {"ids": self.table.lookup(words)}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float16, "x")])  # type: ignore[untyped-decorator]
        def noise(self, x: Any) -> Any:
            return {"y": x + tf.random.uniform([], dtype=tf.float16)}

        @tf.function  # type: ignore[untyped-decorator]
        def count_one(self) -> Any:
            return self.calls.assign_add(1)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32, "times")])  # type: ignore[untyped-decorator]
        def count(self, times: Any) -> Any:
            """The assignment is three functions deep, and the output does not depend on its value."""
            counted = tf.while_loop(lambda i: i < times, lambda i: i + self.count_one() * 0 + 1, (0,))
            with tf.control_dependencies(counted):
                return {"times": tf.identity(times)}

    zoo = Zoo()
    signatures = {"scale": zoo.scale, "look_up": zoo.look_up, "noise": zoo.noise, "count": zoo.count}
    tf.saved_model.save(zoo, str(folder), signatures=signatures)
    return folder


@pytest.fixture(scope="session")
def exported_keras(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of a Keras model with layers that keep state while training."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("exported") / "keras" / "1"
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(2)]
    )
    model.export(str(folder), verbose=False)
    return folder
