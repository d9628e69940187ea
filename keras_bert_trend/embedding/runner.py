"""A model run over many texts: windows of them are tokenised, batched by length, computed, and put back in order."""

from __future__ import annotations

import collections
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, get_args

import keras
import numpy as np

from keras_bert_trend.embedding.batches import padded_lengths, plan_batches, rounded_up, whole_vectors
from keras_bert_trend.embedding.compiled import compiled_function, named_poolings
from keras_bert_trend.embedding.names import LongTexts
from keras_bert_trend.embedding.texts import windows
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.preprocessing.windows import Windows, check_stride, default_stride

_TOKENIZER_BATCH = 1024
_AT_ONCE = 2  # batches in the making


class _Batch(NamedTuple):
    rows: np.ndarray  # where in the window the batch's texts stand; the batch may have more rows, to be ignored
    inputs: dict[str, np.ndarray]  # the encoder's three inputs, int32 (batch, padded length)


def check_long_texts(long_texts: LongTexts | None, truncate: bool) -> None:
    """Raise `ValueError` if `long_texts` has none of its values, or contradicts `truncate`."""
    if long_texts is not None and long_texts not in get_args(LongTexts):
        raise ValueError(f"`long_texts` must be None or one of {get_args(LongTexts)}, got {long_texts!r}.")
    if not truncate and long_texts not in (None, "error"):
        raise ValueError(f"`truncate`=False refuses long texts, but `long_texts` is {long_texts!r}: give one of them.")


class EmbeddingRunner:
    """A layer, its poolings, and how it is run over texts, once; see `embed` for the arguments."""

    def __init__(
        self,
        layer,
        pooling,
        separate,
        batch_size,
        max_length,
        truncate,
        long_texts,
        stride,
        compute_dtype,
        jit_compile,
        threads,
    ) -> None:
        self.preprocessor = layer.preprocessor
        self.limit = _longest(layer, max_length)
        self.long_texts = long_texts or (layer.windows or "truncate" if truncate else "error")
        self.stride = _stride(layer, self.long_texts, stride, self.limit)
        self.batch_size = batch_size
        self.at_once = min(threads or _AT_ONCE, _AT_ONCE)
        self.trimmed = self.seen = 0
        poolings = named_poolings(layer, pooling, separate)
        # A compiler wants few shapes. Without one nothing is padded but within a batch, for attention alone.
        self.fixed_shapes = jit_compile or keras.backend.backend() == "jax"
        self.grid = padded_lengths(self.limit) if self.fixed_shapes else whole_vectors(self.limit)
        self.function = compiled_function(layer, poolings, jit_compile, compute_dtype)
        config = layer.encoder.config
        widths = (pooling.output_dim(config.hidden_size, config.num_layers) for pooling in self.function.poolings)
        self.dims = dict(zip(poolings, widths, strict=True))
        self.layer = layer  # the function does not keep it alive

    def stream(self, texts: Iterable, window_size: int, advance: Callable[[int], Any]) -> Iterator[list[np.ndarray]]:
        """Yield float32 `(texts, dim)` for every window of texts, one array per pooling."""
        with ThreadPoolExecutor(1, "keras_bert_trend.embed") as worker:
            waiting = None
            # Texts are pulled here, not in the thread: generators may be bound to theirs (a database's cursor).
            for window in itertools.chain(windows(texts, window_size), [None]):
                ready, waiting = waiting, window and worker.submit(self._prepare, window)
                if ready is not None:
                    yield self._compute(*ready.result(), advance)

    def warn_about_trimmed(self, stacklevel: int) -> None:
        """Say how many texts were cut, to the caller so many calls up."""
        if self.trimmed:
            warnings.warn(
                f"{self.trimmed} of {self.seen} texts have more than {self.limit} tokens and were trimmed. "
                "truncate=False refuses them instead.",
                stacklevel=stacklevel,
            )

    def token_counts(self, texts: Iterable, window_size: int) -> np.ndarray:
        """Return every text's number of tokens, before trimming, int64 `(texts,)`."""
        counts = [self._tokens(window).lengths() for window in windows(texts, window_size)]
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def _tokens(self, window: list[tuple[bytes, ...]]):
        from keras_bert_trend.preprocessing.packing import TokenArrays

        segments = [self._tokenize(texts) for texts in zip(*window, strict=True)]
        return TokenArrays.of(segments, self.preprocessor.vocabulary.special_ids)

    def _prepare(self, window: list[tuple[bytes, ...]]) -> tuple[list[_Batch], Windows | None]:
        """Return batches of the texts; of windows of theirs if one is too long, and then whose each is."""
        from keras_bert_trend.preprocessing.packing import special_token_count

        tokens = self._tokens(window)
        lengths = tokens.lengths()
        long = np.flatnonzero(lengths > self.limit)
        if len(long) and self.long_texts == "error":
            raise ValueError(
                f"`texts`: position {self.seen + long[0]} has {lengths[long[0]]} tokens, the limit is {self.limit}. "
                "Use truncate=True or a greater max_length, or split the text."
            )
        self.seen += len(lengths)
        cut = None
        if len(long) and self.long_texts != "truncate":
            if len(window[0]) == 2:
                raise ValueError(f"`long_texts`={self.long_texts!r} cuts single texts; pairs are trimmed or refused.")
            tokens, cut = tokens.windows(self.limit - special_token_count(1), self.stride, self.long_texts)
            lengths = tokens.lengths()
        else:
            self.trimmed += len(long)
        batches = []
        lengths = np.minimum(lengths + self.layer.encoder.config.kind.reads_next_token, self.limit)
        for rows, length in plan_batches(lengths, self.batch_size, self.grid):
            size = rounded_up(len(rows), self.batch_size, length) if self.fixed_shapes else len(rows)
            filled_up = np.pad(rows, (0, size - len(rows)), mode="edge")
            batches.append(_Batch(rows, tokens.pack(filled_up, length)))
        return batches, cut

    def _tokenize(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of all texts, int32 `(n,)`, and the token count of each text, int64 `(texts,)`."""
        import tensorflow as tf

        parts = [
            self.preprocessor.tokenize(tf.constant(texts[start : start + _TOKENIZER_BATCH]))
            for start in range(0, len(texts), _TOKENIZER_BATCH)
        ]
        values = np.concatenate([part.values.numpy() for part in parts])
        return values, np.concatenate([part.row_lengths().numpy() for part in parts])

    def _compute(self, batches: list[_Batch], cut: Windows | None, advance: Callable[[int], Any]) -> list[np.ndarray]:
        count = sum(len(batch.rows) for batch in batches)
        results = [np.empty((count, width), np.float32) for width in self.dims.values()]
        for batch, arrays in self._run(batches):
            for result, vectors in zip(results, arrays, strict=True):
                result[batch.rows] = vectors[: len(batch.rows)]
            # Of a text's windows one is the first.
            advance(len(batch.rows) if cut is None else np.count_nonzero(cut.firsts[batch.rows]))
        return results if cut is None else [cut.averages(result) for result in results]

    def _run(self, batches: list[_Batch]) -> Iterator[tuple[_Batch, list[np.ndarray]]]:
        """Yield every batch with its vectors; under TensorFlow two batches run at a time, unless there is one thread.

        While one batch keeps a single core busy (small operations, copies, Python), the other uses the rest.
        """

        def run(batch: _Batch) -> list[np.ndarray]:
            return [keras.ops.convert_to_numpy(vectors) for vectors in self.function(batch.inputs)]

        if self.fixed_shapes or keras.backend.backend() != "tensorflow":
            yield from ((batch, run(batch)) for batch in batches)
            return
        self.function.call.get_concrete_function()  # traced here: Keras's settings are those of the caller's thread
        with ThreadPoolExecutor(self.at_once, "keras_bert_trend.embed") as workers:
            waiting: collections.deque = collections.deque()
            try:
                for batch in batches:
                    waiting.append((batch, workers.submit(run, batch)))
                    if len(waiting) > self.at_once:
                        ready, future = waiting.popleft()
                        yield ready, future.result()
                for ready, future in waiting:
                    yield ready, future.result()
            finally:  # an error or Ctrl-C in one batch: the others are not begun
                workers.shutdown(wait=True, cancel_futures=True)


def _stride(layer: BertTrend, long_texts: str, stride: int | None, limit: int) -> int:
    from keras_bert_trend.preprocessing.packing import special_token_count

    size = limit - special_token_count(1)
    check_stride(stride, long_texts, size)
    if stride is None and long_texts == layer.windows and layer.stride is not None:
        return min(layer.stride, size)
    return default_stride(size) if stride is None else stride


def _longest(layer: BertTrend, max_length: int | None) -> int:
    positions = layer.encoder.config.max_position_embeddings
    if max_length is None:
        return layer.preprocessor.sequence_length or layer.preprocessor.max_length or positions
    if isinstance(max_length, bool) or not isinstance(max_length, int | np.integer) or not 3 <= max_length <= positions:
        raise ValueError(f"`max_length` must be between 3 and {positions}, the model's positions, got {max_length!r}.")
    return int(max_length)
