"""The zoo's networks, built from code: each function writes one SavedModel, from fixed seeds.

Guarantees that outputs depend on inputs: the unfitted convolutions of an image network pass on ever less of the image, and the
softmax behind them is the same for all of them, so that no comparison could fail. Normalizations are therefore fitted to images
and last layers solved for, or drawn wide; the small networks are trained. Assumes TensorFlow and Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo_inputs import (
    CITIES,
    CLUSTERS,
    FITTED,
    IMAGE_CLASSES,
    OCCUPATIONS,
    SEED,
    SIDES,
    SMALL_SIDE,
    TEXT_CLASSES,
    TOKENS,
    VOCABULARY,
    questions,
)

#: The ends of the names of a residual branch's last normalization.
_BRANCH_ENDS = ("project_BN", "project_bn", "_3_bn")
#: EfficientNet's last one.
_TOP = "top_bn"
_CLASSES = 1000


def _wide() -> Any:
    """For weights of last layers and embeddings that are not trained."""
    import keras

    return keras.initializers.RandomNormal(stddev=0.5, seed=SEED)


def _write(model: Any, target: Path) -> None:
    model.export(str(target), verbose=False)


def _train(model: Any, name: str, rows: int, epochs: int) -> Any:
    import keras

    asked = questions(name, rows, FITTED)
    model.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy())
    model.fit(asked.inputs, asked.labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def perceptron(target: Path) -> None:
    """x [None, 100] -> 100-256-256-10 with ReLU and softmax, trained."""
    from keras import Input, Model, layers

    x = Input((100,), name="x")
    hidden = layers.Dense(256, activation="relu")(x)
    hidden = layers.Dense(256, activation="relu")(hidden)
    model = Model({"x": x}, layers.Dense(CLUSTERS, activation="softmax")(hidden), name="perceptron")
    _write(_train(model, "perceptron", 8192, 3), target)


def wide_and_deep(target: Path) -> None:
    """Two numbers and two words [None, 1], looked up in vocabularies inside the graph; crossed, embedded, one probability."""
    import keras
    from keras import Input, layers

    numbers = {name: Input((1,), name=name) for name in ("age", "hours")}
    words = {name: Input((1,), name=name, dtype="string") for name in ("occupation", "city")}
    known = {"occupation": OCCUPATIONS, "city": CITIES}
    sizes = {name: len(vocabulary) + 1 for name, vocabulary in known.items()}
    places = {name: layers.StringLookup(vocabulary=list(known[name]))(words[name]) for name in words}

    def table(place: Any, rows: int, width: int) -> Any:
        return layers.Flatten()(layers.Embedding(rows, width, embeddings_initializer=_wide())(place))

    crossed = places["occupation"] * sizes["city"] + places["city"]
    wide = [table(crossed, sizes["occupation"] * sizes["city"], 1), *(table(places[name], sizes[name], 1) for name in places)]
    scaled = [layers.Rescaling(0.02)(each) for each in numbers.values()]
    deep = layers.Concatenate()([*scaled, *(table(places[name], sizes[name], 32) for name in places)])
    for width in (256, 128, 64):
        deep = layers.Dense(width, activation="relu")(deep)
    together = layers.Concatenate()([*wide, deep])
    probability = layers.Dense(1, activation="sigmoid", kernel_initializer=_wide(), name="probability")(together)
    _write(keras.Model({**numbers, **words}, {"probability": probability}, name="wide_and_deep"), target)


def _image_network(
    application: str, name: str, fitted_rows: int, normalized_rows: int, target: Path, offset: float = 0.0
) -> None:
    """x [None, side, side, 3] -> 1000 classes, of which the first have been learnt; its weights are random but the last.

    Residual branches are kept small, MobileNet's depthwise kernels nearly means, and in the deepest network swish is fed where
    it bends little, at `offset`: a deep random network is chaotic otherwise, what training makes of it is not, and what it says
    of an image has nothing to do with what it says of another that looks the same. The normalizations see a black image and
    noise too: where they do not, both grow from layer to layer until rounding decides.
    """
    import keras

    side = SIDES[name]
    x = keras.Input((side, side, 3), name="x")
    body = getattr(keras.applications, application)(input_tensor=x, include_top=False, pooling="avg", weights=None)
    body = keras.Model({"x": x}, body.output)
    random = np.random.default_rng(SEED)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            is_end = layer.name.endswith(_BRANCH_ENDS)
            centre = 0.0 if is_end or layer.name == _TOP else offset
            layer.gamma.assign((0.25 if is_end else 1.0) * random.uniform(0.7, 1.3, layer.gamma.shape))
            layer.beta.assign(random.normal(centre, 0.1, layer.beta.shape))
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif isinstance(layer, keras.layers.DepthwiseConv2D) and application == "MobileNetV2":
            layer.kernel.assign(0.7 * layer.kernel + 0.4)
    asked = questions(name, fitted_rows, FITTED)
    images = asked.inputs["x"]
    noise = images.max() * random.normal(0, 1, (1, side, side, 3))
    body({"x": np.concatenate([images[:normalized_rows], np.zeros_like(noise), noise])}, training=True)
    batches = [images[at : at + 8] for at in range(0, fitted_rows, 8)]
    seen = np.concatenate([np.asarray(body({"x": batch}, training=False)) for batch in batches])
    last = keras.layers.Dense(_CLASSES, activation="softmax")
    model = keras.Model({"x": x}, last(body.output), name=name)
    last.set_weights(_solved(seen, asked.labels, random))
    _write(model, target)


def _solved(seen: Any, labels: Any, random: np.random.Generator) -> list[Any]:
    """The last layer's weights: ridge regression for the classes that occur, random ones for all others.

    It is as sure of an image as trained networks are: where no class stands out, a small change of them all decides.
    """
    mean = seen.mean(axis=0)
    spread = (seen - mean).std() + 1e-6
    centred = (seen - mean) / spread
    wanted = 15.0 * (np.eye(IMAGE_CLASSES)[labels] - 1 / IMAGE_CLASSES)
    ridge = centred @ centred.T + 0.05 * seen.shape[1] * np.eye(len(seen))
    kernel = random.normal(0, 0.5 / seen.shape[1] ** 0.5, (seen.shape[1], _CLASSES))
    kernel[:, :IMAGE_CLASSES] = centred.T @ np.linalg.solve(ridge, wanted)
    kernel /= spread
    return [kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)]


def conv1d_text(target: Path) -> None:
    """tokens [None, 128] int32 -> four classes: embedding, two convolutions, trained."""
    from keras import Input, Model, layers

    tokens = Input((TOKENS,), name="tokens", dtype="int32")
    hidden = layers.Embedding(VOCABULARY, 64)(tokens)
    hidden = layers.Conv1D(128, 5, activation="relu", padding="same")(hidden)
    hidden = layers.MaxPooling1D(2)(hidden)
    hidden = layers.Conv1D(128, 5, activation="relu")(hidden)
    hidden = layers.Dense(64, activation="relu")(layers.GlobalMaxPooling1D()(hidden))
    model = Model({"tokens": tokens}, layers.Dense(TEXT_CLASSES, activation="softmax")(hidden), name="conv1d_text")
    _write(_train(model, "conv1d_text", 2048, 3), target)


def lstm_text(target: Path) -> None:
    """tokens [None, 128] int64 -> four classes: embedding and an LSTM, a loop in the graph as Keras exports it."""
    from keras import Input, Model, layers

    tokens = Input((TOKENS,), name="tokens", dtype="int64")
    hidden = layers.LSTM(64)(layers.Embedding(VOCABULARY, 64, embeddings_initializer=_wide())(tokens))
    classes = layers.Dense(TEXT_CLASSES, activation="softmax", kernel_initializer=_wide())(hidden)
    _write(Model({"tokens": tokens}, classes, name="lstm_text"), target)


def two_tower(target: Path) -> None:
    """user [None, 20] (what was looked at) and item [None, 1], int32 -> score, and the embedding of each."""
    from keras import Input, Model, layers

    def tower(hidden: Any, name: str) -> Any:
        for width in (256, 128):
            hidden = layers.Dense(width, activation="relu")(hidden)
        return layers.UnitNormalization(name=name)(layers.Dense(64)(hidden))

    user, item = Input((20,), name="user", dtype="int32"), Input((1,), name="item", dtype="int32")
    items = layers.Embedding(VOCABULARY, 64, embeddings_initializer=_wide())
    towers = {
        "user_embedding": tower(layers.GlobalAveragePooling1D()(items(user)), "user_embedding"),
        "item_embedding": tower(layers.Flatten()(items(item)), "item_embedding"),
    }
    score = layers.Dot(axes=1, name="score")(list(towers.values()))
    _write(Model({"user": user, "item": item}, {"score": score, **towers}, name="two_tower"), target)


def encoder(target: Path) -> None:
    """ids and mask [None, 128] int32 -> every token and all of them, 256 wide: four layers of four heads, as in BERT."""
    import keras
    from keras import Input, Model, layers

    class Places(layers.Layer):  # type: ignore[misc]
        """Adds what stands for a token's place."""

        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=tuple(shape[1:]), initializer=_wide(), name="table")

        def call(self, tokens: Any) -> Any:
            return tokens + self.table

    ids, mask = Input((TOKENS,), name="ids", dtype="int32"), Input((TOKENS,), name="mask", dtype="int32")
    hidden = layers.Embedding(8000, 256, embeddings_initializer=_wide())(ids)
    hidden = layers.LayerNormalization(epsilon=1e-6)(Places()(hidden))
    seen = keras.ops.expand_dims(keras.ops.not_equal(mask, 0), 1)
    for _ in range(4):
        attended = layers.MultiHeadAttention(4, 64)(hidden, hidden, attention_mask=seen)
        hidden = layers.LayerNormalization(epsilon=1e-6)(hidden + attended)
        inner = layers.Dense(256)(layers.Dense(1024, activation="gelu")(hidden))
        hidden = layers.LayerNormalization(epsilon=1e-6)(hidden + inner)
    pooled = layers.Dense(256, activation="tanh")(hidden[:, 0])
    _write(Model({"ids": ids, "mask": mask}, {"tokens": hidden, "pooled": pooled}, name="encoder"), target)


def tf1_graph(target: Path) -> None:
    """A graph of TensorFlow 1 with variables in a session, trained there: what Adam keeps of them is saved with them.

    x [None, 28, 28, 1] -> `serving_default`: probabilities and classes; `features`: what stands before the last layer.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    asked = questions("tf1_graph", 2048, FITTED)
    assert asked.labels is not None
    with tf.Graph().as_default(), v1.Session() as session, v1.variable_scope("net", use_resource=False):
        v1.set_random_seed(SEED)
        x = v1.placeholder(tf.float32, [None, SMALL_SIDE, SMALL_SIDE, 1], "x")
        labels = v1.placeholder(tf.int64, [None])
        first, second = v1.get_variable("first", [5, 5, 1, 32]), v1.get_variable("second", [5, 5, 32, 64])
        hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, first, 2, "SAME"), v1.get_variable("first_bias", [32])))
        hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(hidden, second, 2, "SAME"), v1.get_variable("second_bias", [64])))
        flat = tf.reshape(hidden, [-1, 7 * 7 * 64])
        features = tf.nn.relu(tf.matmul(flat, v1.get_variable("dense", [7 * 7 * 64, 256])) + v1.get_variable("bias", [256]))
        logits = tf.matmul(features, v1.get_variable("last", [256, IMAGE_CLASSES]))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        step = v1.train.AdamOptimizer(1e-3).minimize(loss)
        session.run(v1.global_variables_initializer())
        for at in range(0, 2048, 64):
            session.run(step, {x: asked.inputs["x"][at : at + 64], labels: asked.labels[at : at + 64]})
        outputs = {"probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, axis=1)}
        define = v1.saved_model.predict_signature_def
        signatures = {"serving_default": define({"x": x}, outputs), "features": define({"x": x}, {"features": features})}
        builder = v1.saved_model.Builder(str(target))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def multi_task(target: Path) -> None:
    """features [None, 64], category [None, 1] and words [None, 32] -> a rating, one of five kinds, and a probability."""
    from keras import Input, Model, layers

    features = Input((64,), name="features")
    category, words = Input((1,), name="category", dtype="int32"), Input((32,), name="words", dtype="int32")
    text = layers.Conv1D(64, 3, activation="relu")(layers.Embedding(VOCABULARY, 32, embeddings_initializer=_wide())(words))
    embedded = layers.Flatten()(layers.Embedding(101, 16, embeddings_initializer=_wide())(category))
    shared = layers.Concatenate()([features, embedded, layers.GlobalMaxPooling1D()(text)])
    for width in (256, 256):
        shared = layers.BatchNormalization(moving_mean_initializer=_wide())(layers.Dense(width, activation="relu")(shared))

    def task(name: str, size: int, activation: str | None) -> Any:
        own = layers.Dense(64, activation="relu")(shared)
        return layers.Dense(size, activation=activation, kernel_initializer=_wide(), name=name)(own)

    tasks = {"rating": task("rating", 1, None), "kind": task("kind", 5, "softmax"), "click": task("click", 1, "sigmoid")}
    _write(Model({"features": features, "category": category, "words": words}, tasks, name="multi_task"), target)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "perceptron": perceptron,
    "wide_and_deep": wide_and_deep,
    "mobilenet_v2": partial(_image_network, "MobileNetV2", "mobilenet_v2", 128, 32),
    "resnet50": partial(_image_network, "ResNet50", "resnet50", 64, 16),
    "efficientnet_b0": partial(_image_network, "EfficientNetB0", "efficientnet_b0", 64, 16),
    "efficientnet_b5": partial(_image_network, "EfficientNetB5", "efficientnet_b5", 192, 8, offset=1.5),
    "conv1d_text": conv1d_text,
    "lstm_text": lstm_text,
    "two_tower": two_tower,
    "encoder": encoder,
    "tf1_graph": tf1_graph,
    "multi_task": multi_task,
}


def build(name: str, target: Path) -> None:
    """Writes a model of BUILDERS, the same every time."""
    import keras

    keras.utils.set_random_seed(SEED)
    BUILDERS[name](target)
