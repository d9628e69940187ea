"""A small BERT trained by masked language modelling alone, on the data sets' texts and the standard library's docs.

3 blocks, 128 wide, MiniLM's vocabulary. The corpus is small and holds the test texts too, without labels: the encoder
says how the poolings rank on states that no contrastive training has shaped, not how good a BERT is.
"""

from __future__ import annotations

import ast
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras import ops

from benchmarks.harness import say
from benchmarks.quality import data
from keras_bert_trend import BertEncoder, BertPreprocessor
from keras_bert_trend.optimizers import fine_tuning_optimizer

_LENGTH, _MASKED, _BATCH, _STEPS, _REPORT = 64, 9, 32, 3000, 300
_CONFIG = {
    "hidden_size": 128,
    "num_layers": 3,
    "num_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    "hidden_dropout": 0.0,  # the corpus is seen a few times only
    "attention_dropout": 0.0,
}


def train(folder: Path) -> None:
    """Train the encoder, write it as a Hugging Face folder, and print how often it guesses a held-out word."""
    preprocessor = BertPreprocessor.from_handle("minilm", sequence_length=None)
    tokens = preprocessor.vocabulary.tokens
    rows = _rows(preprocessor)
    np.random.default_rng(0).shuffle(rows)
    held, rows = rows[:512], rows[512:]
    say(f"masked-lm: {len(rows)} rows of {_LENGTH} tokens")

    keras.utils.set_random_seed(0)
    encoder = BertEncoder({"vocab_size": len(tokens), **_CONFIG})
    words = keras.Input((_LENGTH,), dtype="int32")
    positions = keras.Input((_MASKED,), dtype="int32")
    inputs = {"input_word_ids": words, "input_mask": ops.ones_like(words), "input_type_ids": ops.zeros_like(words)}
    states = encoder(inputs)["sequence_output"]
    model = keras.Model([words, positions], _WordGuesses(encoder)([states, positions]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(fine_tuning_optimizer(2e-3, _STEPS), loss, metrics=["accuracy"], jit_compile=True)
    mask, checked = tokens.index("[MASK]"), _masked(held, tokens.index("[MASK]"), len(tokens), 0)
    for first in range(0, _STEPS, _REPORT):
        chosen = np.random.default_rng(first).integers(len(rows), size=_REPORT * _BATCH)
        x, y = _masked(rows[chosen], mask, len(tokens), first)
        model.fit(x, y, batch_size=_BATCH, verbose=0, shuffle=False)
        loss, accuracy = model.evaluate(*checked, batch_size=_BATCH, verbose=0)
        say(f"masked-lm: {first + _REPORT} steps, held-out loss {loss:.2f}, accuracy {accuracy:.3f}")
    frequent = np.bincount(rows[:, 1:-1].ravel()).argmax()
    say(f"masked-lm: always {tokens[frequent]!r}: accuracy {np.mean(checked[1] == frequent):.3f}")
    encoder.export_hugging_face(folder, preprocessor)


class _WordGuesses(keras.layers.Layer):
    """Logits of the words at some positions, by the word embeddings (Devlin et al. 2019; google-research/bert)."""

    def __init__(self, encoder: BertEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.dense = keras.layers.Dense(encoder.config.hidden_size, "gelu")
        self.norm = keras.layers.LayerNormalization()
        self.bias = self.add_weight((encoder.config.vocab_size,), "zeros", name="bias")

    def call(self, inputs):
        states, positions = inputs
        chosen = ops.take_along_axis(states, positions[:, :, None], axis=1)
        table = ops.transpose(self.encoder.embeddings.word_embeddings)
        return ops.matmul(self.norm(self.dense(chosen)), table) + self.bias


def _rows(preprocessor: BertPreprocessor) -> np.ndarray:
    """Return the corpus as ids `(rows, 64)`: texts end to end, each row between `[CLS]` and `[SEP]`."""
    ids = [np.asarray(preprocessor.tokenize(list(texts)).flat_values) for texts in _batches(_texts(), 1000)]
    ids = np.concatenate(ids)
    inner = _LENGTH - 2
    special = preprocessor.vocabulary.special_ids
    rows = ids[: len(ids) // inner * inner].reshape(-1, inner)
    return np.pad(rows, [(0, 0), (1, 1)], constant_values=[(0, 0), (special.start, special.end)]).astype(np.int32)


def _texts() -> Iterator[str]:
    for name in data.NAMES:
        yield from data.read(name).texts
    documents = list(pydoc_data.topics.topics.values())
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if not {"test", "tests", "site-packages", "idlelib"} & set(path.parts):
            tree = ast.parse(path.read_bytes())
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef
            documents += [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    for document in documents:
        yield from filter(None, map(str.strip, re.split(r"\n\s*\n", document)))


def _batches(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    texts = list(texts)
    for first in range(0, len(texts), size):
        yield texts[first : first + size]


def _masked(rows: np.ndarray, mask: int, words: int, seed: int):
    """Return `([ids, positions], truth)`: of the chosen tokens 80 % are masked, 10 % random, 10 % left as they are."""
    generator = np.random.default_rng(seed)
    positions = generator.permuted(np.tile(np.arange(1, _LENGTH - 1), (len(rows), 1)), axis=1)[:, :_MASKED]
    truth = np.take_along_axis(rows, positions, axis=1)
    draw = generator.random(truth.shape)
    shown = np.where(draw < 0.8, mask, np.where(draw < 0.9, generator.integers(words, size=truth.shape), truth))
    ids = rows.copy()
    np.put_along_axis(ids, positions, shown.astype(ids.dtype), axis=1)
    return [ids, positions.astype(np.int32)], truth
