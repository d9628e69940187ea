"""A model run over texts: windows of them are tokenised, batched and computed, and put back in order."""

from __future__ import annotations

import collections
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bert_trend._utils import check_count
from keras_bert_trend.embedding.batches import padded_lengths, plan_batches, rounded_up, whole_vectors
from keras_bert_trend.embedding.compiled import compiled_function, named_poolings
from keras_bert_trend.embedding.texts import windows
from keras_bert_trend.inspection.batch import as_layer
from keras_bert_trend.layer import BertTrend

_TOKENIZER_BATCH = 1024
_AT_ONCE = 2  # batches in the making


class _Batch(NamedTuple):
    rows: np.ndarray  # where in the window the batch's texts stand; the batch may have more rows, to be ignored
    inputs: dict[str, np.ndarray]  # the encoder's three inputs, int32 (batch, padded length)


class _Tokens(NamedTuple):
    segments: list[list[np.ndarray]]  # one or two columns of token ids, trimmed
    lengths: np.ndarray  # of the packed texts, special tokens included


class TextEncoder:
    """A model and all that it takes to run it over texts."""

    def __init__(self, model, pooling, separate, batch_size, max_length, truncate, jit_compile) -> None:
        check_count("batch_size", batch_size)
        layer = as_layer(model, truncate=True, argument="model")
        self.preprocessor = layer.preprocessor
        self.limit = _longest(layer, max_length)
        self.batch_size, self.truncate = batch_size, truncate
        self.trimmed = self.seen = 0
        poolings = named_poolings(layer, pooling, separate)
        # A compiler wants few shapes. Without one nothing is padded but within a batch, for attention alone.
        self.fixed_shapes = jit_compile or keras.backend.backend() == "jax"
        self.grid = padded_lengths(self.limit) if self.fixed_shapes else whole_vectors(self.limit)
        self.function = compiled_function(layer, poolings, jit_compile)
        config = layer.encoder.config
        widths = (pooling.output_dim(config.hidden_size, config.num_layers) for pooling in self.function.poolings)
        self.dims = dict(zip(poolings, widths, strict=True))
        self.layer = layer  # the function does not keep it alive

    def stream(self, texts: Iterable, window_size: int, advance: Callable[[int], Any]) -> Iterator[list[np.ndarray]]:
        """Yield for every window of texts float32 `(texts, dim)`, one array per pooling."""
        with ThreadPoolExecutor(1, "keras_bert_trend.embed") as worker:
            waiting = None
            # Texts are pulled here, not in the thread: generators may be bound to theirs (a database's cursor).
            for window in itertools.chain(windows(texts, window_size), [None]):
                ready, waiting = waiting, window and worker.submit(self._prepare, window)
                if ready is not None:
                    batches = ready.result()
                    yield self._compute(batches, advance)

    def warn_about_trimmed(self) -> None:
        """Say how many texts were cut, to the caller's caller."""
        if self.trimmed:
            warnings.warn(
                f"{self.trimmed} of {self.seen} texts have more than {self.limit} tokens and were trimmed. "
                "truncate=False refuses them instead.",
                stacklevel=3,
            )

    def _prepare(self, window: list[tuple[bytes, ...]]) -> list[_Batch]:
        tokens = self._trim([self._tokenize(texts) for texts in zip(*window, strict=True)])
        batches = plan_batches(tokens.lengths, self.batch_size, self.grid)
        return [_Batch(rows, self._pack(tokens.segments, rows, length)) for rows, length in batches]

    def _tokenize(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        import tensorflow as tf

        rows: list[np.ndarray] = []
        for start in range(0, len(texts), _TOKENIZER_BATCH):
            ragged = self.preprocessor.tokenize(tf.constant(texts[start : start + _TOKENIZER_BATCH]))
            rows += np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1])
        return rows

    def _trim(self, segments: list[list[np.ndarray]]) -> _Tokens:
        """Trim as `BertPreprocessor` does: the end of a text; of a pair's segments in turns."""
        counts = np.array([[len(row) for row in column] for column in segments])
        special = 1 + len(segments)
        budget = self.limit - special
        long = np.flatnonzero(counts.sum(axis=0) > budget)
        if len(long) and not self.truncate:
            tokens = counts[:, long[0]].sum() + special
            raise ValueError(
                f"`texts`: position {self.seen + long[0]} has {tokens} tokens, the limit is {self.limit}. Use "
                "truncate=True or a greater max_length, or split the text."
            )
        kept = np.minimum(counts, budget)
        if len(segments) == 2:
            first, second = counts
            kept = np.minimum(
                counts, [np.maximum(budget - budget // 2, budget - second), np.maximum(budget // 2, budget - first)]
            )
        self.trimmed += len(long)
        self.seen += counts.shape[1]
        columns = [
            [row[:count] for row, count in zip(column, column_kept, strict=True)]
            for column, column_kept in zip(segments, kept, strict=True)
        ]
        return _Tokens(columns, kept.sum(axis=0) + special)

    def _pack(self, segments: list[list[np.ndarray]], rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Pack `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]`, padded to `length`."""
        vocabulary = self.preprocessor.vocabulary
        size = rounded_up(len(rows), self.batch_size, length) if self.fixed_shapes else len(rows)
        ids = np.full((size, length), vocabulary.id_of(vocabulary.padding_token), np.int32)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        ids[:, 0], mask[:, 0] = vocabulary.id_of("[CLS]"), 1  # rows that only fill up are [CLS] alone
        separator = vocabulary.id_of("[SEP]")
        for row, position in enumerate(rows):
            start = 1
            for number, column in enumerate(segments):
                end = start + len(column[position])
                ids[row, start:end], ids[row, end] = column[position], separator
                types[row, start : end + 1] = number
                start = end + 1
            mask[row, :start] = 1
        return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}

    def _compute(self, batches: list[_Batch], advance: Callable[[int], Any]) -> list[np.ndarray]:
        count = sum(len(batch.rows) for batch in batches)
        results = [np.empty((count, width), np.float32) for width in self.dims.values()]
        for batch, arrays in self._run(batches):
            for result, vectors in zip(results, arrays, strict=True):
                result[batch.rows] = vectors[: len(batch.rows)]
            advance(len(batch.rows))
        return results

    def _run(self, batches: list[_Batch]) -> Iterator[tuple[_Batch, list[np.ndarray]]]:
        """Yield every batch with its vectors; under TensorFlow two are in the making.

        Where one batch keeps a single core busy (small operations, copies, Python), the other has the rest.
        """

        def run(batch: _Batch) -> list[np.ndarray]:
            return [keras.ops.convert_to_numpy(vectors) for vectors in self.function(batch.inputs)]

        if self.fixed_shapes or keras.backend.backend() != "tensorflow":
            yield from ((batch, run(batch)) for batch in batches)
            return
        self.function.call.get_concrete_function()  # traced here: Keras's settings are those of the caller's thread
        with ThreadPoolExecutor(_AT_ONCE, "keras_bert_trend.embed") as workers:
            waiting: collections.deque = collections.deque()
            try:
                for batch in batches:
                    waiting.append((batch, workers.submit(run, batch)))
                    if len(waiting) > _AT_ONCE:
                        ready, future = waiting.popleft()
                        yield ready, future.result()
                for ready, future in waiting:
                    yield ready, future.result()
            finally:  # an error or Ctrl-C in one batch: the others are not begun
                workers.shutdown(wait=True, cancel_futures=True)


def _longest(layer: BertTrend, max_length: int | None) -> int:
    positions = layer.encoder.config.max_position_embeddings
    if max_length is None:
        return layer.preprocessor.sequence_length or layer.preprocessor.max_length or positions
    if isinstance(max_length, bool) or not isinstance(max_length, int) or not 3 <= max_length <= positions:
        raise ValueError(f"`max_length` must be between 3 and {positions}, the model's positions, got {max_length!r}.")
    return max_length
