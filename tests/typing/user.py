"""What a user's type checker sees of every public name. Read by mypy and pyright in CI, never run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import assert_type

from keras_bert_trend import (
    POOLING_NAMES,
    AttentionMap,
    BertConfig,
    BertEncoder,
    BertPreprocessor,
    BertTrend,
    ClsPooling,
    ConcatPooling,
    Explanation,
    FirstLastMean,
    FusedAdamW,
    LastFourConcat,
    LastFourSum,
    LayerPooling,
    LayerWalk,
    MaxPooling,
    MeanPooling,
    MeanStdPooling,
    PoolerPooling,
    Pooling,
    PoolingComparison,
    SecondToLast,
    TrendPooling,
    UnsupportedArchitectureError,
    Vocabulary,
    WarmupLinearDecay,
    __version__,
    attention,
    attention_html,
    compare_poolings,
    embed,
    embed_stream,
    explain,
    layer_walk,
    plot_attention,
    plot_attention_overview,
    similarity,
    word_vectors,
)
from keras_bert_trend.inspection.word_vectors import WordVector
from keras_bert_trend.pooling import hidden_states, masked_mean


def build(folder: Path) -> BertTrend:
    config = BertConfig(vocab_size=30_522, num_layers=6, hidden_act="gelu")
    assert_type(config.head_size, int)
    assert_type(BertConfig.from_dict(config.to_dict()), BertConfig)

    vocabulary = Vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "apple"])
    assert_type(vocabulary.id_of("apple"), int)
    preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=16)
    assert_type(BertPreprocessor.from_handle(folder, truncate=True), BertPreprocessor)
    preprocessor.export_text_preprocessing(folder / "preprocessing", sequence_length=128)

    encoder = BertEncoder(config, trainable_layers=2)
    try:
        encoder = BertEncoder.from_handle("minilm", trainable=True)
    except UnsupportedArchitectureError as error:
        print(error)
    assert_type(encoder.named_weights(), dict[str, np.ndarray])
    encoder.set_named_weights(encoder.named_weights())
    encoder.export_text_encoder(folder / "bert", preprocessor, overwrite=True)

    layer = BertTrend(encoder=encoder, preprocessor=preprocessor, pooling=[MeanPooling(), "trend"])
    layer = BertTrend(folder, pooling="smooth_trend", sequence_length=64, return_all=True)
    assert_type(layer.embedding_dim, int)
    seen = layer(["I want an apple."], return_all=True)
    print(seen["encoder_outputs"][3].shape)
    return layer


class FirstBlock(Pooling):
    """A pooling of one's own."""

    def compute(self, outputs: Any, input_mask: Any, input_word_ids: Any = None) -> Any:
        return masked_mean(hidden_states(outputs)[1], input_mask)


def poolings() -> list[Pooling]:
    assert_type(POOLING_NAMES, tuple[str, ...])
    own = [FirstBlock(), ClsPooling(), PoolerPooling(), MeanPooling(), MaxPooling(), MeanStdPooling(), FirstLastMean()]
    layers = [SecondToLast(), LastFourSum(level="sentence"), LastFourConcat(), LayerPooling([-1, -2], combine="concat")]
    trend = TrendPooling([0, 1, 2], reading="published", measure="log_ratio", unit="word")
    joined = ConcatPooling([*own, *layers, trend])
    assert_type(joined.output_dim(768, 12), int)
    return [joined]


def train(layer: BertTrend) -> None:
    schedule: Any = WarmupLinearDecay(5e-5, total_steps=100, warmup_steps=10)  # of AdamW, pyright infers `float` only
    print(FusedAdamW(schedule, weight_decay=0.01), layer.trainable_weights, __version__.upper())


def vectors(layer: BertTrend, texts: list[str], path: Path) -> None:
    assert_type(embed(texts, layer), np.ndarray)
    assert_type(embed(path, "minilm", pooling="last_four_sum", precision="int8", output="numpy"), np.ndarray)
    assert_type(embed(texts, layer, pooling=["mean", "cls"], output="dict"), dict[str, np.ndarray])
    assert_type(embed(texts, layer, output="tf"), Any)  # TensorFlow has no types
    pairs = embed(zip(texts, texts, strict=True), layer, normalize=True, truncate_dim=64, show_progress=True)
    assert_type(similarity(pairs, pairs, metric="dot"), np.ndarray)
    assert_type(similarity([[1.0, 0.0]]), np.ndarray)
    assert_type(embed_stream((text for text in texts), layer, chunk_size=4), Iterator[np.ndarray])


def look_inside(text: str, texts: list[str], either: str | list[str], path: Path) -> None:
    one = explain(text, "minilm", reading="layers", unit="word", measure="asinh")
    assert_type(one, Explanation)
    assert_type(explain(texts, path), list[Explanation])
    assert_type(explain(either), Explanation | list[Explanation])
    if one.anchor is not None:
        print(one.anchor.text.upper(), one.anchor.span, one.rows.shape, one.embedding.shape)
    one.plot(top=3).savefig(path)
    assert_type(one.to_dict(), dict[str, Any])

    seen = attention(text, path, pair=text)
    assert_type(seen, AttentionMap)
    assert_type(seen.matrix(1, 2), np.ndarray)
    seen.plot(layer=1, head=6).savefig(path)
    seen.plot_overview().savefig(path)
    seen.save_html(path, layer=1, head=-1)
    plot_attention(text, layer=1).savefig(path)
    plot_attention_overview(text).savefig(path)
    assert_type(attention_html(text), str)

    walk = layer_walk(text, unit="token")
    assert_type(walk, LayerWalk)
    assert_type(layer_walk(tuple(texts)), list[LayerWalk])
    walk.plot().savefig(path)

    for word, span, vector in word_vectors(text, layers=[-1], combine="first", dim=50):
        print(word.upper(), span, vector.shape)
    assert_type(word_vectors(text), list[WordVector])
    assert_type(word_vectors(texts), list[list[WordVector]])


def compare(texts: list[str], path: Path) -> None:
    result = compare_poolings(texts, ["spam", "ham"], poolings=["mean", ["mean", "trend"]], groups=[1, 2])
    assert_type(result, PoolingComparison)
    assert_type(result.best, str)
    assert_type(result.means, dict[str, float])
    result.plot().savefig(path)
