"""A BERT that no exporter wrote is read by its mathematics, however that is written; anything else is refused."""

import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertConfig, BertEncoder
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.sources import load_source
from keras_bert_trend.sources.source import UnsupportedArchitectureError
from tests import raw_bert
from tests.common import random_inputs, to_numpy
from tests.raw_bert import Notation, write_raw_bert

SIZES = {"num_layers": 2, "hidden": 16, "heads": 4, "inner": 24, "vocab_size": 40, "max_positions": 12}
TOLERANCE = 2e-5
EXPECTED = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=4,
    intermediate_size=24,
    max_position_embeddings=12,
    type_vocab_size=2,
    hidden_act="gelu_tanh",
    layer_norm_epsilon=raw_bert.EPSILON,
    attention_mask_constant=raw_bert.MASK_CONSTANT,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    pooler="tanh",
)

# Every way of writing a part that is read. The models below take them column by column.
READ = {
    "norm": [
        "batch_normalization",
        "own_moments",
        "centred",
        "formula",
        "deviation",
        "reduce_variance",
        "difference_of_squares",
    ],
    "gelu": [
        "tanh",
        "tanh_cdf",
        "sigmoid",
        "nn_approximate",
        "nn_exact",
        "erf",
        "erfc",
        "relu",
        "tanh_tf_sqrt",
        "erf_tf_sqrt",
    ],
    "dense": [
        "rows",
        "matmul",
        "bias_add",
        "bias_first",
        "einsum",
        "einsum_ellipsis",
        "tensordot",
        "tensordot_axes",
    ],
    "scale": [
        "query",
        "key",
        "both",
        "product",
        "division",
        "transposed_key",
        "einsum",
        "division_tf_sqrt",
        "rsqrt",
    ],
    "mask": [
        "reshaped",
        "expanded",
        "broadcast",
        "newaxis",
        "newaxis_first",
        "minus_one",
        "minus",
        "integer_difference",
        "equals_zero",
        "where",
        "where_equal",
    ],
    "words": ["gather", "embedding_lookup", "one_hot_rows", "one_hot"],
    "positions": ["slice", "slice_expanded", "slice_function", "newaxis", "range", "range_expanded"],
    "first_token": ["index", "index_all", "squeezed", "slice", "gather"],
    "add": ["operator", "flipped", "add_n"],
    "softmax": ["nn", "positive_axis"],
    "merge": ["static_width", "ensured"],
}
ACTIVATIONS = {"nn_exact": "gelu", "erf": "gelu", "erf_tf_sqrt": "gelu", "erfc": "gelu", "relu": "relu"}
FUNCTIONS = {
    "norm": raw_bert.NORMS,
    "gelu": raw_bert.GELUS,
    "dense": raw_bert.DENSES,
    "scale": raw_bert.SCALES,
    "mask": raw_bert.MASKS,
    "words": raw_bert.WORDS,
    "positions": raw_bert.POSITIONS,
    "first_token": raw_bert.FIRST_TOKENS,
    "add": raw_bert.ADDS,
    "softmax": raw_bert.SOFTMAXES,
    "split": raw_bert.SPLITS,
    "merge": raw_bert.MERGES,
}
MODELS = [
    Notation(**{field: ways[i % len(ways)] for field, ways in READ.items()})
    for i in range(max(len(ways) for ways in READ.values()))
]
OTHERS = [
    (field, way)
    for field, functions in FUNCTIONS.items()
    for way in list(functions)[1:]  # the first of each is the default
    if way not in READ.get(field, ())
]


def largest_difference(module, encoder) -> float:
    """Compare the module itself with the encoder that was read, on rows of full, middle and least length."""
    inputs = random_inputs(encoder.config, (9, 5, 2), seq=9, seed=1)
    inputs["input_type_ids"] = inputs["input_word_ids"] % 2
    inputs = {name: tf.constant(inputs[name]) for name in INPUT_NAMES}
    expected, outputs = module(inputs), encoder(inputs)
    return max(float(np.abs(to_numpy(outputs[key]) - to_numpy(expected[key])).max()) for key in expected)


@pytest.mark.parametrize("notation", MODELS, ids=lambda notation: f"{notation.gelu}-{notation.scale}")
def test_the_notation_does_not_matter(tmp_path, notation):
    module = write_raw_bert(tmp_path, **SIZES, notation=notation)
    encoder = BertEncoder.from_handle(tmp_path)
    assert encoder.config.hidden_act == ACTIVATIONS.get(notation.gelu, "gelu_tanh")
    assert largest_difference(module, encoder) <= TOLERANCE


@pytest.mark.parametrize("heads", ["flat", "axes"])
def test_every_constant_is_read(tmp_path, heads):
    module = write_raw_bert(tmp_path, **SIZES, notation=Notation(heads=heads))
    source = load_source(tmp_path)
    assert source.config == EXPECTED
    assert source.lower_case is True
    assert len(source.vocabulary) == SIZES["vocab_size"]
    assert source.vocabulary[:5] == raw_bert.SPECIAL_TOKENS
    assert largest_difference(module, BertEncoder.from_source(source)) <= TOLERANCE


def test_names_do_not_matter(tmp_path):
    """Query has the name of a key and so on: what a variable is follows from its place alone."""
    names = {"query": "key{}", "key": "value{}", "value": "query{}", "words": "position_embedding"}
    module = write_raw_bert(tmp_path, **SIZES, names=names)
    assert largest_difference(module, BertEncoder.from_handle(tmp_path)) <= TOLERANCE


def test_without_a_pooler(tmp_path):
    module = write_raw_bert(tmp_path, **SIZES, pooler=False)
    encoder = BertEncoder.from_handle(tmp_path)
    assert encoder.config.pooler == "identity"
    assert largest_difference(module, encoder) <= TOLERANCE


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("final_norm", [True, False])
def test_pre_layer_norm(tmp_path, pooler, final_norm):
    """It has the same variables and the same shapes as a BERT; only the order differs."""
    module = write_raw_bert(tmp_path, **SIZES, pre_layer_norm=True, final_norm=final_norm, pooler=pooler)
    encoder = BertEncoder.from_handle(tmp_path)
    assert (encoder.config.block, encoder.config.final_norm) == ("pre_norm", final_norm)
    assert largest_difference(module, encoder) <= TOLERANCE


@pytest.mark.parametrize(("field", "way"), OTHERS)
def test_other_notations_are_read_right_or_refused(tmp_path, field, way):
    """The reader may learn these. What it must not do is give other numbers."""
    module = write_raw_bert(tmp_path, **{**SIZES, "num_layers": 1}, notation=Notation(**{field: way}))
    try:
        encoder = BertEncoder.from_handle(tmp_path)
    except UnsupportedArchitectureError:
        return
    assert largest_difference(module, encoder) <= TOLERANCE


def normalise(axes):
    def norm(x, stretch, shift):
        mean, variance = tf.nn.moments(x, axes, keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, shift, stretch, raw_bert.EPSILON)

    return norm


def interleave(x, heads, width):
    parts = tf.reshape(x, (tf.shape(x)[0], tf.shape(x)[1], width // heads, heads))
    return tf.transpose(parts, (0, 3, 1, 2))


def mask_queries(mask):
    return tf.transpose(raw_bert.MASKS["reshaped"](mask), (0, 1, 3, 2))


def mask_queries_by_shape(mask):
    shape = tf.shape(mask)
    return (1.0 - tf.cast(tf.reshape(mask, (shape[0], 1, shape[1], 1)), tf.float32)) * raw_bert.MASK_CONSTANT


def truncated(x):
    return tf.cast(tf.cast(x, tf.int32), x.dtype)


def causal(query, key, size):
    later = 1.0 - tf.linalg.band_part(tf.ones((tf.shape(query)[2], tf.shape(query)[2])), -1, 0)
    return raw_bert.SCALES["query"](query, key, size) + later * raw_bert.MASK_CONSTANT


# What looks like a BERT, has its variables, and computes something else.
IMPOSTORS = {
    "norm over the sequence": ("norm", normalise([1])),
    "norm over sequence and width": ("norm", normalise([1, 2])),
    "softmax over the queries": ("softmax", lambda x: tf.nn.softmax(x, axis=2)),
    "attention weights transposed": ("softmax", lambda x: tf.transpose(tf.nn.softmax(x), (0, 1, 3, 2))),
    "causal": ("scale", causal),
    "scaled by 1/size": ("scale", lambda query, key, size: tf.matmul(query, key, transpose_b=True) / size),
    "unscaled": ("scale", lambda query, key, size: tf.matmul(query, key, transpose_b=True)),
    "heads interleaved": ("split", interleave),
    "heads split without a transpose": (
        "split",
        lambda x, heads, width: tf.reshape(x, (tf.shape(x)[0], heads, tf.shape(x)[1], width // heads)),
    ),
    "heads merged without a transpose": ("merge", lambda x, shape, width: tf.reshape(x, (shape[0], shape[1], width))),
    "heads merged interleaved": (
        "merge",
        lambda x, shape, width: tf.reshape(tf.transpose(x, (0, 2, 3, 1)), (shape[0], shape[1], width)),
    ),
    "queries masked": ("mask", mask_queries_by_shape),
    "queries masked by a transpose": ("mask", mask_queries),
    "words scaled": ("words", lambda table, ids: tf.gather(table, ids) * 4.0),
    "ids in reverse": ("words", lambda table, ids: tf.gather(table, tf.reverse(ids, [1]))),
    "ids through a cast to bool": (
        "words",
        lambda table, ids: tf.gather(table, tf.cast(tf.cast(ids, tf.bool), tf.int32)),
    ),
    "positions from 1": ("positions", lambda table, length: table[1 : length + 1]),
    "positions in reverse": ("positions", lambda table, length: table[::-1][:length]),
    "every position the first": ("positions", lambda table, length: table[:1]),
    "position table reshaped": (
        "positions",
        lambda table, length: tf.reshape(tf.reshape(table, table.shape[::-1])[:, :length], (length, table.shape[1])),
    ),
    "last token": ("first_token", lambda x: x[:, -1]),
    "first row for all": ("first_token", lambda x: tf.broadcast_to(x[:1, 0], (tf.shape(x)[0], x.shape[-1]))),
    "hidden states rounded": ("dense", lambda x, kernel, bias: tf.matmul(truncated(x), kernel) + bias),
    "biases rounded": ("dense", lambda x, kernel, bias: tf.matmul(x, kernel) + truncated(bias)),
    "gelu rounded": ("gelu", lambda x: tf.nn.gelu(truncated(x))),
    "quick gelu": ("gelu", lambda x: x * tf.sigmoid(1.702 * x)),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_impostors_are_refused(tmp_path, monkeypatch, name):
    field, function = IMPOSTORS[name]
    monkeypatch.setitem(FUNCTIONS[field], "impostor", function)
    write_raw_bert(tmp_path, **{**SIZES, "num_layers": 1}, notation=Notation(**{field: "impostor"}))
    with pytest.raises(UnsupportedArchitectureError):
        BertEncoder.from_handle(tmp_path)
