"""`embed`, `embed_stream` and `similarity`: many texts to vectors, with little padding and bounded memory.

    texts ──► windows ──► token ids ──► batches of like lengths ──► encoder, poolings ──► the texts' own order

Texts are taken a window at a time. While one window is computed, two batches at a time, a thread tokenises the next; no
more is ever held.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import ArrayLike

from keras_bert_trend._utils import check_count, progress_bar
from keras_bert_trend.embedding.runner import EmbeddingRunner
from keras_bert_trend.embedding.texts import open_texts
from keras_bert_trend.embedding.vectors import Precision, VectorFormat, normalized
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import Pooling

_WINDOW = 4096  # texts that are sorted together: enough that a batch's lengths differ by little
Metric = Literal["cosine", "dot", "euclidean"]


@overload
def embed(
    texts: Iterable[Any] | os.PathLike[str],
    model: BertTrend | str | os.PathLike[str],
    *,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["numpy"] = "numpy",
    jit_compile: bool = False,
) -> np.ndarray: ...


@overload
def embed(
    texts: Iterable[Any] | os.PathLike[str],
    model: BertTrend | str | os.PathLike[str],
    *,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["dict"],
    jit_compile: bool = False,
) -> dict[str, np.ndarray]: ...


@overload
def embed(
    texts: Iterable[Any] | os.PathLike[str],
    model: BertTrend | str | os.PathLike[str],
    *,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["tf"],
    jit_compile: bool = False,
) -> Any: ...


def embed(
    texts: Iterable[Any] | os.PathLike[str],
    model: BertTrend | str | os.PathLike[str],
    *,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["numpy", "tf", "dict"] = "numpy",
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
    runner = EmbeddingRunner(model, pooling, output == "dict", batch_size, max_length, truncate, jit_compile)
    form = VectorFormat(runner.dims, normalize, truncate_dim, precision, ranges, calibrate=True)
    chunks = [form.nothing()]
    with progress_bar(show_progress, total) as advance:
        chunks += [form.chunk(vectors) for vectors in runner.stream(texts, _WINDOW, advance)]
    runner.warn_about_trimmed()
    results = form.all(dict(zip(form.dims, map(np.concatenate, zip(*chunks, strict=True)), strict=True)))
    if output == "dict":
        return results
    (result,) = results.values()
    if output == "tf":
        import tensorflow as tf

        return tf.convert_to_tensor(result)
    return result


def embed_stream(
    texts: Iterable[Any] | os.PathLike[str],
    model: BertTrend | str | os.PathLike[str],
    *,
    chunk_size: int = _WINDOW,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    show_progress: bool | None = False,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
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
    runner = EmbeddingRunner(model, pooling, False, batch_size, max_length, truncate, jit_compile)
    form = VectorFormat(runner.dims, normalize, truncate_dim, precision, ranges, calibrate=False)

    def chunks():
        try:
            with progress_bar(show_progress, total) as advance:
                for vectors in runner.stream(texts, chunk_size, advance):
                    yield form.chunk(vectors)[0]
        finally:  # also where the caller has seen enough
            runner.warn_about_trimmed()

    return chunks()


def similarity(a: ArrayLike, b: ArrayLike | None = None, metric: Metric = "cosine") -> np.ndarray:
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
    if metric not in get_args(Metric):
        raise ValueError(f"`metric` must be one of {list(get_args(Metric))}, got {metric!r}.")
    a = _as_vectors("a", a)
    b = a if b is None else _as_vectors("b", b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"`a` and `b` must have the same width, got {a.shape} and {b.shape}.")
    if metric == "cosine":
        return np.clip(normalized(a) @ normalized(b).T, -1, 1).astype(np.float32)
    products = a @ b.T
    if metric == "euclidean":
        squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * products
        products = -np.sqrt(np.maximum(squares, 0))
    return products.astype(np.float32)


def _as_vectors(name: str, value) -> np.ndarray:
    try:
        vectors = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be vectors of numbers, as `embed` returns them: {error}.") from error
    if vectors.ndim not in (1, 2):
        raise ValueError(f"`{name}` must be vectors (n, dim) or one (dim,), got shape {vectors.shape}.")
    return np.atleast_2d(vectors)
