"""`embed`, `embed_stream` and `similarity`: many texts to vectors, with little padding and bounded memory.

    texts ──► windows ──► token ids ──► batches of like lengths ──► encoder, poolings ──► the texts' own order

Texts are taken a window at a time. While one window is computed, two batches at a time, a thread tokenises the next; no
more is ever held.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import itertools
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bert_trend.encoder.token_rows import WHOLE_VECTORS, can_skip_padding
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import Pooling, encoder_arguments, get_pooling
from keras_bert_trend.tokenized import as_layer

_WINDOW = 4096  # texts that are sorted together: enough that a batch's lengths differ by little
_WINDOW_BYTES = 2**24  # and fewer where texts are books
_TOKENIZER_BATCH = 1024
_FULL_BATCH_LENGTH = 128  # longer texts come fewer to a batch
_AT_ONCE = 2  # batches in the making
_KEPT_FUNCTIONS = 8  # per encoder

PRECISIONS = ("float32", "float16", "int8", "binary")
METRICS = ("cosine", "dot", "euclidean")


def embed(
    texts: Iterable,
    model: BertTrend | str | os.PathLike,
    *,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: str = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: str = "numpy",
    jit_compile: bool = False,
) -> Any:
    """Embed many texts, in their order, without dropout.

    Texts of like length share a batch; under TensorFlow only attention computes what little is padded. The result is
    that of calling the layer text by text, whatever the order or the batch size: up to rounding (1e-6 of float32; more
    for `"trend"`) where something else computes it, XLA or eager mode; see README.

    Example:
        >>> vectors = embed(["How are you?", "I want an apple."], "minilm", pooling="last_four_sum", normalize=True)
        >>> vectors.shape
        (2, 384)

    Args:
        texts: a list, tuple, 1-D NumPy array, pandas Series, iterator or generator of `str` (or UTF-8 `bytes`); of
            tuples of two for pairs; or an `os.PathLike` naming a UTF-8 file with one text a line. Empty texts are
            texts. One `str` alone is an error: pass `[text]`.
        model: a `BertTrend` with a preprocessor, or what `BertTrend` takes as its handle. A handle is read again by
            every call; a layer is not, nor traced again: give a layer where you call often.
        pooling: a name, a list (concatenated) or a `Pooling`. `None` takes the layer's own, for a handle
            `BertTrend`'s default.
        batch_size: texts per batch, at most. Longer texts than 128 tokens come fewer: `batch_size * 128` tokens.
        max_length: the most tokens a text may have; by default the layer's `sequence_length` or `max_length`, and for a
            handle all positions of the model.
        truncate: trim longer texts and warn once with their number. `False` refuses them.
        show_progress: whether a progress bar is on stderr; `None` shows one on a terminal, and in a notebook
            that has ipywidgets.
        normalize: divide every vector by its Euclidean length (after `truncate_dim`); the zero vector stays.
        truncate_dim: keep the first so many dimensions only.
        precision: `"float32"`; `"float16"`; `"int8"`: every dimension's range cut into 255 steps; `"binary"`: one bit a
            dimension, 1 where it is positive, eight to a byte, uint8 `(n, ceil(dim / 8))` as `np.packbits` makes it
            (sentence-transformers calls that `"ubinary"`).
        ranges: for `"int8"`, the least and greatest value of every dimension, `(2, dim)`; what lies outside is clipped.
            By default those of the vectors themselves: then int8 vectors of two calls cannot be compared. With
            `output="dict"`, a dict of them.
        output: `"numpy"`; `"tf"`, a TensorFlow tensor; or `"dict"`: every pooling of the list `pooling` apart, name →
            array, from one run of the encoder.
        jit_compile: compile with XLA, once for every padded shape (about 20 lengths, few batch sizes). Under the
            TensorFlow backend only; JAX always does, PyTorch never.

    Returns:
        Array `(n, dim)` of dtype `precision`, row `i` for text `i`; `(0, dim)` for no texts. See `output`.

    Raises:
        ValueError: an argument does not fit; a text is no `str`, no valid Unicode, or (`truncate=False`) too long: the
            message has its position; or the layer has no preprocessor.
    """
    if output not in ("numpy", "tf", "dict"):
        raise ValueError(f'`output` must be "numpy", "tf" or "dict", got {output!r}.')
    texts, total = open_texts(texts)
    encoder = _TextEncoder(model, pooling, output == "dict", batch_size, max_length, truncate, jit_compile)
    finish = _Finish(encoder.dims, normalize, truncate_dim, precision, ranges, calibrate=True)
    chunks = [finish.nothing()]
    with progress_bar(show_progress, total) as advance:
        chunks += [finish.chunk(vectors) for vectors in encoder.stream(texts, _WINDOW, advance)]
    encoder.warn_about_trimmed()
    results = finish.all(dict(zip(finish.dims, map(np.concatenate, zip(*chunks, strict=True)), strict=True)))
    if output == "dict":
        return results
    (result,) = results.values()
    if output == "tf":
        import tensorflow as tf

        return tf.convert_to_tensor(result)
    return result


def embed_stream(
    texts: Iterable,
    model: BertTrend | str | os.PathLike,
    *,
    chunk_size: int = _WINDOW,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = False,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: str = "float32",
    ranges: np.ndarray | None = None,
    jit_compile: bool = False,
) -> Iterator[np.ndarray]:
    """Embed a corpus of any size: yield arrays, chunk by chunk, that together are `embed`'s result.

    At most two chunks of texts are taken ahead of what was yielded. Texts are taken in the caller's thread.

    Example:
        >>> lines = (f"line {number}" for number in range(10))
        >>> [chunk.shape for chunk in embed_stream(lines, "minilm", pooling="mean", chunk_size=4)]
        [(4, 384), (4, 384), (2, 384)]

    Args:
        texts: as in `embed`.
        model: as in `embed`.
        chunk_size: texts per array. Texts of a chunk are sorted by length: in a small one long and short share batches
            more often. Chunks of very long texts (16 MB together) are smaller.
        pooling: as in `embed`.
        batch_size: as in `embed`.
        max_length: as in `embed`.
        truncate: as in `embed`; the warning comes at the end.
        show_progress: as in `embed`, but off by default: two bars cannot share a terminal.
        normalize: as in `embed`.
        truncate_dim: as in `embed`.
        precision: as in `embed`; `"int8"` needs `ranges`.
        ranges: as in `embed`.
        jit_compile: as in `embed`.

    Yields:
        Arrays `(at most chunk_size, dim)` of dtype `precision`, in the texts' order; none for no texts.

    Raises:
        ValueError: as `embed`. Arguments are checked by the call, texts when they are reached.
    """
    check_count("chunk_size", chunk_size)
    texts, total = open_texts(texts)
    encoder = _TextEncoder(model, pooling, False, batch_size, max_length, truncate, jit_compile)
    finish = _Finish(encoder.dims, normalize, truncate_dim, precision, ranges, calibrate=False)

    def chunks():
        try:
            with progress_bar(show_progress, total) as advance:
                for vectors in encoder.stream(texts, chunk_size, advance):
                    yield finish.chunk(vectors)[0]
        finally:  # also where the caller has seen enough
            encoder.warn_about_trimmed()

    return chunks()


def similarity(a, b=None, metric: str = "cosine") -> np.ndarray:
    """Compare every vector of `a` with every vector of `b`; greater is closer.

    Example:
        >>> similarity([[1.0, 0.0], [0.0, 0.0]], [[3.0, 4.0]])
        array([[0.6],
               [0. ]], dtype=float32)

    Args:
        a: vectors `(n, dim)`, or one `(dim,)`; float or int8, not bits.
        b: vectors `(m, dim)`, or one; `a` itself by default.
        metric: `"cosine"`: `a·b / (|a| |b|)`, 0 where either is the zero vector; `"dot"`: `a·b`; `"euclidean"`:
            `−|a − b|`, negative so that greater is closer here too.

    Returns:
        float32 `(n, m)`, computed in float64.

    Raises:
        ValueError: the metric is unknown, or the shapes do not fit.
    """
    if metric not in METRICS:
        raise ValueError(f"`metric` must be one of {list(METRICS)}, got {metric!r}.")
    a = _as_vectors("a", a)
    b = a if b is None else _as_vectors("b", b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"`a` and `b` must have the same width, got {a.shape} and {b.shape}.")
    if metric == "cosine":
        return np.clip(_normalized(a) @ _normalized(b).T, -1, 1).astype(np.float32)
    products = a @ b.T
    if metric == "euclidean":
        squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * products
        products = -np.sqrt(np.maximum(squares, 0))
    return products.astype(np.float32)


def _as_vectors(name: str, value) -> np.ndarray:
    vectors = np.asarray(value, dtype=np.float64)
    if vectors.ndim not in (1, 2):
        raise ValueError(f"`{name}` must be vectors (n, dim) or one (dim,), got shape {vectors.shape}.")
    return np.atleast_2d(vectors)


def _normalized(vectors: np.ndarray) -> np.ndarray:
    """Divide rows by their Euclidean length; rows without one stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


# Texts: whatever the caller holds, to windows of UTF-8 segments.


def open_texts(texts) -> tuple[Iterable, int | None]:
    """Return the texts, ready to be iterated over, and their number where it is known."""
    if isinstance(texts, str | bytes):
        raise ValueError(
            f"`texts` must be many texts: pass [{texts!r}], or pathlib.Path({texts!r}) for a file of them."
        )
    if isinstance(texts, os.PathLike):
        return _lines(texts), None
    if isinstance(texts, Mapping | set | frozenset):
        raise ValueError(f"`texts` must be texts in an order, got a {type(texts).__name__}.")
    if getattr(texts, "ndim", 1) != 1:  # a DataFrame would give its column names
        raise ValueError(
            f"`texts` must have one dimension, got shape {tuple(texts.shape)}. Pairs are tuples: list(zip(a, b))."
        )
    if hasattr(texts, "numpy"):
        texts = texts.numpy()
    if not isinstance(texts, Iterable):
        raise ValueError(f"`texts` must be a list, array, iterator or path of texts, got {texts!r}.")
    return texts, len(texts) if hasattr(texts, "__len__") else None


def _lines(path: os.PathLike) -> Iterator[bytes]:
    # Bytes, so that text which is no UTF-8 is reported with its line like any other; only "\n" ends a line.
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            yield line if number else line.removeprefix(b"\xef\xbb\xbf")


def _windows(texts: Iterable, size: int) -> Iterator[list[tuple[bytes, ...]]]:
    """Yield lists of at most `size` texts, each one UTF-8 segment, or two for a pair."""
    window, length, segments_each = [], 0, None
    for position, text in enumerate(texts):
        segments = _as_segments(text, position)
        segments_each = segments_each or len(segments)
        if len(segments) != segments_each:
            raise ValueError(f"`texts` must be all texts or all pairs: position {position} is not what the first is.")
        window.append(segments)
        length += sum(map(len, segments))
        if len(window) == size or length >= _WINDOW_BYTES:
            yield window
            window, length = [], 0
    if window:
        yield window


def _as_segments(text, position: int) -> tuple[bytes, ...]:
    segments = text if isinstance(text, tuple) and len(text) == 2 else (text,)
    for segment in segments:
        if not isinstance(segment, str | bytes):
            raise ValueError(
                f"`texts` must hold strings, or pairs as tuples of two: position {position} is "
                f"{_shortened(text)} of type {type(text).__name__}."
            )
    try:
        return tuple(_as_utf8(segment) for segment in segments)
    except UnicodeError as error:
        raise ValueError(f"`texts` must hold valid Unicode: position {position}: {error}.") from error


def _as_utf8(text: str | bytes) -> bytes:
    if isinstance(text, str):
        return text.encode()
    text.decode()  # raises
    return text


def _shortened(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Token ids: windows to batches of like lengths.


class _Batch(NamedTuple):
    rows: np.ndarray  # where in the window the batch's texts stand; the batch may have more rows, to be ignored
    inputs: dict[str, np.ndarray]  # the encoder's three inputs, int32 (batch, padded length)


class _Tokens(NamedTuple):
    segments: list[list[np.ndarray]]  # one or two columns of token ids, trimmed
    lengths: np.ndarray  # of the packed texts, special tokens included


def whole_vectors(limit: int) -> np.ndarray:
    """Return the lengths at which padding changes no bit of a text's vector, and `limit`."""
    return np.minimum(np.arange(WHOLE_VECTORS, limit + WHOLE_VECTORS, WHOLE_VECTORS), limit)


def padded_lengths(limit: int) -> np.ndarray:
    """Return the few lengths to pad to where each is compiled: steps of 8 to 64, 16 to 128, 32 to 256 …, to `limit`."""
    lengths, step = [0], 8
    while lengths[-1] < limit:
        lengths.append(min(lengths[-1] + step, limit))
        step *= 2 if lengths[-1] == 8 * step else 1
    return np.array(lengths[1:])


def plan_batches(lengths: np.ndarray, batch_size: int, grid: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Cut texts of these lengths into batches of like lengths, the longest first.

    Args:
        lengths: token counts `(n,)`, at most `grid[-1]`.
        batch_size: the most texts a batch has.
        grid: the lengths to pad to, ascending.

    Returns:
        For every batch its texts' positions and the length to pad to. No text is padded to twice what it needs, as far
        as the grid allows.
    """
    padded = grid[np.searchsorted(grid, lengths)]
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        length = int(padded[order[start]])
        rows = order[start : start + _full_batch(batch_size, length)]
        rows = rows[2 * padded[rows] > length]  # one long text must not drag short ones along
        batches.append((rows, length))
        start += len(rows)
    return batches


def _full_batch(batch_size: int, length: int) -> int:
    return max(min(batch_size, batch_size * _FULL_BATCH_LENGTH // length), 1)


def _rounded_up(rows: int, batch_size: int, length: int) -> int:
    """Return the batch size to fill up to where every other shape is compiled anew: a full batch, or a power of two."""
    return min(1 << (rows - 1).bit_length(), _full_batch(batch_size, length))


class _TextEncoder:
    """A model and all that it takes to run it over texts."""

    def __init__(self, model, pooling, separate, batch_size, max_length, truncate, jit_compile) -> None:
        check_count("batch_size", batch_size)
        layer = as_layer(model, truncate=True, argument="model")
        self.preprocessor = layer.preprocessor
        self.limit = _longest(layer, max_length)
        self.batch_size, self.truncate = batch_size, truncate
        self.trimmed = self.seen = 0
        poolings = _named_poolings(layer, pooling, separate)
        # A compiler wants few shapes. Without one nothing is padded but within a batch, for attention alone.
        self.fixed_shapes = jit_compile or keras.backend.backend() == "jax"
        self.grid = padded_lengths(self.limit) if self.fixed_shapes else whole_vectors(self.limit)
        self.function = _compiled_function(layer, poolings, jit_compile)
        config = layer.encoder.config
        widths = (pooling.output_dim(config.hidden_size, config.num_layers) for pooling in self.function.poolings)
        self.dims = dict(zip(poolings, widths, strict=True))
        self.layer = layer  # the function does not keep it alive

    def stream(self, texts: Iterable, window_size: int, advance: Callable[[int], Any]) -> Iterator[list[np.ndarray]]:
        """Yield for every window of texts float32 `(texts, dim)`, one array per pooling."""
        with ThreadPoolExecutor(1, "keras_bert_trend.embed") as worker:
            waiting = None
            # Texts are pulled here, not in the thread: generators may be bound to theirs (a database's cursor).
            for window in itertools.chain(_windows(texts, window_size), [None]):
                ready, waiting = waiting, window and worker.submit(self._prepare, window)
                if ready is not None:
                    batches = ready.result()
                    yield self._compute(batches, advance)

    def warn_about_trimmed(self) -> None:
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
        size = _rounded_up(len(rows), self.batch_size, length) if self.fixed_shapes else len(rows)
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


def check_count(name: str, value) -> None:
    """Refuse what is no positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")


# Computing: one function per encoder and choice of poolings, for batches of any shape.


def _named_poolings(layer: BertTrend, pooling, separate: bool) -> dict[str, Any]:
    """Return name → what stands for a pooling: a name, a layer, or a tuple of them, so that it may be a key."""
    chosen = layer.pooling if pooling is None else pooling
    if isinstance(chosen, list | tuple) and not chosen:
        raise ValueError("`pooling` must not be an empty list.")
    parts = list(chosen) if separate and isinstance(chosen, list | tuple) else [chosen]
    names = [part.name if isinstance(part, Pooling) else str(part) for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f'`pooling` must have a name once each for output="dict", got {names}.')
    for part in parts:  # says what is wrong before it is a key
        get_pooling(part, layer.preprocessor.vocabulary.token_kinds)
    return dict(zip(names, map(_as_key, parts), strict=True))


def _as_key(pooling):
    return tuple(map(_as_key, pooling)) if isinstance(pooling, list | tuple) else pooling


class _Function(NamedTuple):
    poolings: list[Pooling]
    call: Callable[[dict[str, np.ndarray]], list]

    def __call__(self, inputs: dict[str, np.ndarray]) -> list:
        return self.call(inputs)


# Functions live as long as their encoder: they refer to it weakly, and to its variables.
_functions: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _compiled_function(layer: BertTrend, poolings: dict[str, Any], jit_compile: bool) -> _Function:
    kept = _functions.setdefault(layer.encoder, {})
    key = (tuple(poolings.values()), bool(jit_compile))
    if key not in kept:
        while len(kept) >= _KEPT_FUNCTIONS:
            del kept[next(iter(kept))]
        kinds = layer.preprocessor.vocabulary.token_kinds
        layers = [get_pooling(pooling, kinds) for pooling in poolings.values()]
        kept[key] = _Function(layers, _compile(layer.encoder, layers, jit_compile))
    return kept[key]


def _compile(encoder, poolings: list[Pooling], jit_compile: bool) -> Callable[[dict[str, np.ndarray]], list]:
    reference = weakref.ref(encoder)
    skip_padding = not jit_compile and can_skip_padding()

    def forward(inputs):
        encoder = reference()
        arguments = encoder_arguments(poolings, encoder.config.num_layers, inputs, skip_padding=skip_padding)
        outputs = encoder(inputs, training=False, **arguments)
        results = []
        for pooling in poolings:
            vectors = pooling(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"])
            if len(vectors.shape) != 2:
                raise ValueError(f"`pooling` {pooling.name!r} gives a vector per token; embed needs one per text.")
            results.append(keras.ops.cast(vectors, "float32"))
        return results

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _compile_with_tensorflow(forward, jit_compile)
    if backend == "jax":
        variables = [*encoder.variables, *(variable for pooling in poolings for variable in pooling.variables)]
        return _compile_with_jax(forward, variables)
    if backend == "torch":
        return _run_with_torch(forward)
    raise ValueError(f"Texts are embedded under the backends tensorflow, jax and torch; this is {backend}.")


def _compile_with_tensorflow(forward, jit_compile: bool):
    import tensorflow as tf

    names = ("input_word_ids", "input_mask", "input_type_ids")
    signature = [{name: tf.TensorSpec((None, None), tf.int32, name) for name in names}]  # traced once, for all shapes
    return tf.function(forward, input_signature=signature, jit_compile=jit_compile, autograph=False)


def _compile_with_jax(forward, variables: list):
    import jax

    @jax.jit
    def run(values, inputs):  # values as arguments: as constants, weights trained later would be ignored
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return forward(inputs)

    return lambda inputs: run([variable.value for variable in variables], inputs)


def _run_with_torch(forward):
    import torch

    return torch.no_grad()(forward)


# Vectors: what becomes of them after pooling.


class _Finish:
    """Trims, normalises and quantises; int8 waits for all vectors where they give the ranges."""

    def __init__(self, dims, normalize, truncate_dim, precision, ranges, *, calibrate: bool) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {list(PRECISIONS)}, got {precision!r}.")
        if truncate_dim is not None:
            check_count("truncate_dim", truncate_dim)
            if truncate_dim > min(dims.values()):
                raise ValueError(f"`truncate_dim`={truncate_dim} is more than the width, {min(dims.values())}.")
        if ranges is not None and precision != "int8":
            raise ValueError(f'`ranges` is for precision="int8", not {precision!r}.')
        if ranges is None and precision == "int8" and not calibrate:
            raise ValueError('precision="int8" needs `ranges` here: a stream has not seen all vectors.')
        self.dims = {name: truncate_dim or dim for name, dim in dims.items()}
        self.normalize, self.precision = normalize, precision
        self.ranges = None if ranges is None else _checked_ranges(ranges, self.dims)
        self._waits = precision == "int8" and ranges is None

    def nothing(self) -> list[np.ndarray]:
        """Return the chunk of no texts: arrays `(0, dim)`."""
        return self.chunk([np.zeros((0, dim), np.float32) for dim in self.dims.values()])

    def chunk(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Finish a chunk's float32 arrays, as far as that goes without the others."""
        arrays = [array[:, :dim] for array, dim in zip(arrays, self.dims.values(), strict=True)]
        if self.normalize:
            arrays = [_normalized(array) for array in arrays]
        if self._waits:
            return arrays
        ranges = self.ranges or dict.fromkeys(self.dims)
        return [quantized(array, self.precision, ranges[name]) for array, name in zip(arrays, self.dims, strict=True)]

    def all(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Finish what waited for the whole."""
        if not self._waits:
            return arrays
        return {name: quantized(array, self.precision, _own_ranges(array)) for name, array in arrays.items()}


def _checked_ranges(ranges, dims: dict[str, int]) -> dict[str, np.ndarray]:
    ranges = ranges if isinstance(ranges, Mapping) else dict.fromkeys(dims, ranges)
    missing = sorted(set(dims) - set(ranges))
    if missing:
        raise ValueError(f"`ranges` lacks {missing}.")
    checked = {name: np.asarray(ranges[name], np.float32) for name in dims}
    for name, dim in dims.items():
        array = checked[name]
        if array.shape != (2, dim) or not np.all(np.isfinite(array)) or np.any(array[0] > array[1]):
            raise ValueError(f"`ranges` must be the least and greatest values, (2, {dim}), got shape {array.shape}.")
    return checked


def _own_ranges(vectors: np.ndarray) -> np.ndarray:
    if not len(vectors):
        return np.zeros((2, vectors.shape[1]), np.float32)
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)])


def quantized(vectors: np.ndarray, precision: str, ranges: np.ndarray | None) -> np.ndarray:
    """Return float32 vectors in another precision; int8 and bits as in sentence-transformers' `quantize_embeddings`.

    Args:
        vectors: float32 `(n, dim)`.
        precision: one of `PRECISIONS`.
        ranges: for `"int8"`, the least and greatest value of every dimension, `(2, dim)`.
    """
    if precision == "binary":
        return np.packbits(vectors > 0, axis=-1)
    if precision == "int8":
        steps = (ranges[1] - ranges[0]) / 255
        steps = np.where(steps > 0, steps, 1)  # a dimension that never changes
        return np.clip((vectors - ranges[0]) / steps - 128, -128, 127).astype(np.int8)
    return vectors.astype(precision)


@contextlib.contextmanager
def progress_bar(show: bool | None, total: int | None, what: str = "Embedding") -> Iterator[Callable[[int], Any]]:
    """Show a progress bar on stderr, and give what advances it."""
    from rich import console, progress

    screen = console.Console(stderr=True)
    if show is None:  # not `screen.is_terminal`: FORCE_COLOR makes a log one
        # In a notebook Rich draws with ipywidgets, and warns at every turn where they are missing.
        widgets = screen.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        show = widgets or (sys.stderr is not None and sys.stderr.isatty())
    if not show:
        yield lambda count: None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=screen) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
