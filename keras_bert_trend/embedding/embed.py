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

from keras_bert_trend.embedding.embedder import WINDOW, Embedder
from keras_bert_trend.embedding.names import ComputeDtype, LongTexts
from keras_bert_trend.embedding.vectors import Precision, normalized
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import Pooling

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
    long_texts: LongTexts | None = None,
    stride: int | None = None,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["numpy"] = "numpy",
    compute_dtype: ComputeDtype | None = None,
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
    long_texts: LongTexts | None = None,
    stride: int | None = None,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["dict"],
    compute_dtype: ComputeDtype | None = None,
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
    long_texts: LongTexts | None = None,
    stride: int | None = None,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["tf"],
    compute_dtype: ComputeDtype | None = None,
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
    long_texts: LongTexts | None = None,
    stride: int | None = None,
    show_progress: bool | None = None,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
    output: Literal["numpy", "tf", "dict"] = "numpy",
    compute_dtype: ComputeDtype | None = None,
    jit_compile: bool = False,
) -> Any:
    """Embed many texts, in order, without dropout.

    Texts are batched by length to minimise padding, and under TensorFlow only attention computes padding. The result is
    that of calling the layer text by text, whatever the order or the batch size. XLA and eager mode round differently
    (1e-6 of float32; more for `"trend"`).

    Example:
        >>> vectors = embed(["How are you?", "I want an apple."], "minilm", pooling="last_four_sum", normalize=True)
        >>> vectors.shape
        (2, 384)

    Args:
        texts: list, tuple, 1-D NumPy array, pandas Series, iterator, generator or path. The texts, `str` or UTF-8
            `bytes`; tuples of two texts for pairs; or an `os.PathLike` that names a UTF-8 file with one text per line.
            An empty text has an embedding too. A single `str` is an error: pass `[text]`.
        model: `BertTrend`, str or path. A layer with a preprocessor, a handle as `BertTrend` takes it, or a `.keras`
            file with such a layer. Every call reads and traces a handle or file again, so pass a layer if you call
            `embed` often.
        pooling: str, `Pooling`, list of them or `None`. A name, a layer, or a list to concatenate. Defaults to the
            layer's own, or to `BertTrend`'s default for a handle.
        batch_size: int. The largest number of texts per batch. Batches of texts longer than 128 tokens hold fewer, up
            to `batch_size * 128` tokens. Defaults to 64.
        max_length: int or `None`. The largest number of tokens per text. Defaults to the layer's `sequence_length` or
            `max_length`, or to the model's length for a handle.
        truncate: bool. Whether to trim longer texts, and warn once with their number, instead of raising an error.
            Defaults to `True`.
        long_texts: str or `None`. What to do with longer texts: `"truncate"` or `"error"`, as `truncate` says; or cut
            them into windows of `max_length` that overlap, and average the windows' vectors, of all (`"mean"`) or of
            the first and the last (`"first_last"`). Every token counts once: windows that share it share its weight.
            With texts that fit nothing changes. Pairs are trimmed or refused. Defaults to the layer's `windows`, else
            to what `truncate` says.
        stride: int or `None`. With `"mean"`, the number of tokens from the start of a window to the start of the next.
            Defaults to the layer's, else to three quarters of a window.
        show_progress: bool or `None`. Whether to show a progress bar on stderr; `None` shows one on a terminal, and in
            a notebook that has ipywidgets. Defaults to `None`.
        normalize: bool. Whether to divide every vector by its Euclidean length (after `truncate_dim`); the zero vector
            stays zero. Defaults to `False`.
        truncate_dim: int or `None`. Keep only the first `truncate_dim` dimensions. Defaults to `None`, all of them.
        precision: str. `"float32"`; `"float16"`; `"int8"`, the range of every dimension divided into 255 steps; or
            `"binary"`, one bit per dimension, 1 if it is positive, packed into uint8 `(n, ceil(dim / 8))` by
            `np.packbits` (sentence-transformers calls it `"ubinary"`). Defaults to `"float32"`.
        ranges: array `(2, dim)`, dict or `None`. For `"int8"`, the least and greatest value of every dimension; values
            outside are clipped. With `output="dict"`, a dict of such arrays. Defaults to the ranges of the vectors
            themselves, so int8 vectors from two calls cannot be compared.
        output: str. `"numpy"`; `"tf"`, a TensorFlow tensor; or `"dict"`, a dict with an array for each pooling of the
            list `pooling`, from one run of the encoder. Defaults to `"numpy"`.
        compute_dtype: str or `None`. `"bfloat16"` computes matrix products with 8 bits of mantissa, which is faster on
            processors that have them (sums, softmax and norms stay in float32, and so does the attention that chooses
            trend pooling's words); `"float32"`. Defaults to the layer's.
        jit_compile: bool. Under TensorFlow, whether to compile with XLA, once for every padded shape (about 20 lengths,
            few batch sizes). JAX always compiles, PyTorch never. Defaults to `False`.

    Returns:
        Array `(n, dim)` of dtype `precision`, row `i` for text `i`; `(0, dim)` for no texts. See `output`.

    Raises:
        ValueError: if an argument does not fit; if a text is not a `str`, is not valid Unicode, or is too long with
            `truncate=False` (the message has its position); if the layer has no preprocessor; or if `compute_dtype` is
            `"bfloat16"` on a processor without it.
    """
    embedder = Embedder(
        model,
        pooling=pooling,
        batch_size=batch_size,
        max_length=max_length,
        truncate=truncate,
        long_texts=long_texts,
        stride=stride,
        normalize=normalize,
        truncate_dim=truncate_dim,
        precision=precision,
        ranges=ranges,
        compute_dtype=compute_dtype,
        jit_compile=jit_compile,
    )
    return embedder._embed(texts, show_progress, output)


def embed_stream(
    texts: Iterable[Any] | os.PathLike[str],
    model: BertTrend | str | os.PathLike[str],
    *,
    chunk_size: int = WINDOW,
    pooling: str | Pooling | Sequence[str | Pooling] | None = None,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: bool = True,
    long_texts: LongTexts | None = None,
    stride: int | None = None,
    show_progress: bool | None = False,
    normalize: bool = False,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: np.ndarray | None = None,
    compute_dtype: ComputeDtype | None = None,
    jit_compile: bool = False,
) -> Iterator[np.ndarray]:
    """Embed a corpus of any size: yield arrays, chunk by chunk, that together are `embed`'s result.

    At most two chunks of texts are read ahead, in the caller's thread.

    Example:
        >>> lines = (f"line {number}" for number in range(10))
        >>> [chunk.shape for chunk in embed_stream(lines, "minilm", pooling="mean", chunk_size=4)]
        [(4, 384), (4, 384), (2, 384)]

    Args:
        texts: As in `embed`.
        model: As in `embed`.
        chunk_size: int. The number of texts per array. Texts are sorted by length within a chunk, so small chunks batch
            long and short texts together more often. Chunks of very long texts (16 MB together) are smaller. Defaults
            to 4,096.
        pooling: As in `embed`.
        batch_size: As in `embed`.
        max_length: As in `embed`.
        truncate: As in `embed`; the warning comes at the end.
        long_texts: As in `embed`.
        stride: As in `embed`.
        show_progress: As in `embed`. Defaults to `False`, since two bars cannot share a terminal.
        normalize: As in `embed`.
        truncate_dim: As in `embed`.
        precision: As in `embed`; `"int8"` needs `ranges`.
        ranges: As in `embed`.
        compute_dtype: As in `embed`.
        jit_compile: As in `embed`.

    Yields:
        Arrays `(at most chunk_size, dim)` of dtype `precision`, in the order of the texts; none for no texts.

    Raises:
        ValueError: as in `embed`. The call checks the arguments; each text is checked when it is reached.
    """
    embedder = Embedder(
        model,
        pooling=pooling,
        batch_size=batch_size,
        max_length=max_length,
        truncate=truncate,
        long_texts=long_texts,
        stride=stride,
        normalize=normalize,
        truncate_dim=truncate_dim,
        precision=precision,
        ranges=ranges,
        compute_dtype=compute_dtype,
        jit_compile=jit_compile,
    )
    return embedder.stream(texts, chunk_size=chunk_size, show_progress=show_progress)


def similarity(a: ArrayLike, b: ArrayLike | None = None, metric: Metric = "cosine") -> np.ndarray:
    """Compare every vector of `a` with every vector of `b`; greater is closer.

    Example:
        >>> similarity([[1.0, 0.0], [0.0, 0.0]], [[3.0, 4.0]])
        array([[0.6],
               [0. ]], dtype=float32)

    Args:
        a: array `(n, dim)` or `(dim,)`. Vectors, float or int8 but not binary.
        b: array `(m, dim)` or `(dim,)`, or `None`. Vectors. Defaults to `None`, `a` itself.
        metric: str. `"cosine"`, `a·b / (|a| |b|)`, 0 if either is the zero vector; `"dot"`, `a·b`; or `"euclidean"`,
            `−|a − b|`, negative so that greater is closer here too. Defaults to `"cosine"`.

    Returns:
        float32 `(n, m)`, computed in float64.

    Raises:
        ValueError: if the metric is unknown, or if the shapes do not fit.
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
