"""`Embedder`: a model and how to embed with it, as one object that travels to other processes."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_bert_trend._utils import check_count, progress_bar
from keras_bert_trend.embedding.bfloat16 import check_compute_dtype
from keras_bert_trend.embedding.keras_files import layer_of, load_keras_model
from keras_bert_trend.embedding.names import ComputeDtype, LongTexts
from keras_bert_trend.embedding.runner import EmbeddingRunner, check_long_texts
from keras_bert_trend.embedding.texts import open_texts
from keras_bert_trend.embedding.vectors import Precision, VectorFormat
from keras_bert_trend.inspection.batch import as_layer
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import Pooling

WINDOW = 4096  # texts that are sorted together: enough that a batch's lengths differ by little
_KEPT_COPIES = 2  # of embedders that came from other processes


class Embedder:
    """A model and how to embed with it, for workers: it pickles, and loads the model once in every process.

    A pickled embedder holds the name of the model and the options, not the weights (unless `model` is a layer). All
    copies of one embedder that a process unpickles are the same object, so it does not matter how often an engine sends
    one; a process keeps those of the last two embedders. Calls from several threads share the model.

    Example:
        >>> embedder = Embedder("minilm", pooling="mean")  # loads nothing yet
        >>> embedder(["How are you?", "I want an apple."]).shape
        (2, 384)

    Args:
        model: str, path or `BertTrend`. A handle as `BertTrend` takes it, a `.keras` file of a model or layer that is
            or has a `BertTrend`, or a layer with a preprocessor. Workers must find the file under the same path.
        pooling: str, `Pooling`, list of them or `None`. As in `embed`.
        batch_size: int. As in `embed`.
        max_length: int or `None`. As in `embed`.
        truncate: bool. As in `embed`.
        long_texts: str or `None`. As in `embed`.
        stride: int or `None`. As in `embed`.
        normalize: bool. As in `embed`.
        truncate_dim: int or `None`. As in `embed`.
        precision: str. As in `embed`.
        ranges: array `(2, dim)`, dict or `None`. As in `embed`.
        compute_dtype: str or `None`. As in `embed`.
        jit_compile: bool. As in `embed`.
        threads: int or `None`. The number of threads that TensorFlow or PyTorch may compute with in this process. With
            as many workers as cores, give 1. It must be set before TensorFlow computes anything. Defaults to `None`,
            all cores.

    Raises:
        ValueError: if an argument does not fit; those that depend on the model are checked when it is loaded.
    """

    def __init__(
        self,
        model: BertTrend | str | os.PathLike[str],
        *,
        pooling: str | Pooling | Sequence[str | Pooling] | None = None,
        batch_size: int = 64,
        max_length: int | None = None,
        truncate: bool = True,
        long_texts: LongTexts | None = None,
        stride: int | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        ranges: np.ndarray | Mapping[str, np.ndarray] | None = None,
        compute_dtype: ComputeDtype | None = None,
        jit_compile: bool = False,
        threads: int | None = None,
    ) -> None:
        check_count("batch_size", batch_size)
        check_long_texts(long_texts, truncate)
        if threads is not None:
            check_count("threads", threads)
        self.model = model
        self._running = {
            "pooling": pooling,
            "batch_size": batch_size,
            "max_length": max_length,
            "truncate": truncate,
            "long_texts": long_texts,
            "stride": stride,
            "compute_dtype": compute_dtype,
            "jit_compile": jit_compile,
            "threads": threads,
        }
        self._form = {"normalize": normalize, "truncate_dim": truncate_dim, "precision": precision, "ranges": ranges}
        self._key = uuid.uuid4().hex
        self._layer: BertTrend | None = None
        self._loading = threading.Lock()

    def __reduce__(self):
        return _unpickled, (self._key, self.model, {**self._running, **self._form})

    @property
    def layer(self) -> BertTrend:
        """The layer that computes; the first use in a process reads the model."""
        with self._loading:
            if self._layer is None:
                if self._running["threads"] is not None:
                    _set_threads(self._running["threads"])
                check_compute_dtype(self._running["compute_dtype"])
                path = os.fspath(self.model) if isinstance(self.model, str | os.PathLike) else ""
                if path.endswith(".keras"):
                    self._layer = layer_of(load_keras_model(path), path)
                else:
                    self._layer = as_layer(self.model, truncate=True, argument="model")
            return self._layer

    @property
    def max_length(self) -> int:
        """The largest number of tokens per text."""
        return self._runner().limit

    @property
    def long_texts(self) -> LongTexts:
        """What becomes of longer texts: `"truncate"`, `"error"`, or a way to average windows."""
        return self._runner().long_texts

    def token_counts(self, texts: Iterable[Any] | os.PathLike[str]) -> np.ndarray:
        """Return how many tokens each text has, before trimming, with the special tokens.

        Args:
            texts: As in `embed`.

        Returns:
            int64 array `(n,)`.

        Raises:
            ValueError: as `embed`.
        """
        return self._runner().token_counts(open_texts(texts)[0], WINDOW)

    def warm_up(self) -> Embedder:
        """Load the model and embed a text, so that no later call waits for it; return the embedder."""
        self(["warm up"])
        return self

    def __call__(
        self,
        texts: Iterable[Any] | os.PathLike[str],
        *,
        show_progress: bool | None = False,
        output: Literal["numpy", "tf", "dict"] = "numpy",
    ) -> Any:
        """Embed many texts, in order.

        Args:
            texts: As in `embed`.
            show_progress: bool or `None`. As in `embed`. Defaults to `False`.
            output: str. As in `embed`. Defaults to `"numpy"`.

        Returns:
            What `embed` returns.

        Raises:
            ValueError: as `embed`.
        """
        return self._embed(texts, show_progress, output)

    def _runner(self, separate: bool = False) -> EmbeddingRunner:
        return EmbeddingRunner(self.layer, separate=separate, **self._running)

    def _embed(self, texts, show_progress, output):
        if output not in ("numpy", "tf", "dict"):
            raise ValueError(f'`output` must be "numpy", "tf" or "dict", got {output!r}.')
        texts, total = open_texts(texts)
        runner = self._runner(separate=output == "dict")
        form = VectorFormat(runner.dims, **self._form, calibrate=True)
        chunks = [form.nothing()]
        with progress_bar(show_progress, total) as advance:
            chunks += [form.chunk(vectors) for vectors in runner.stream(texts, WINDOW, advance)]
        runner.warn_about_trimmed(stacklevel=4)
        results = form.all(dict(zip(form.dims, map(np.concatenate, zip(*chunks, strict=True)), strict=True)))
        if output == "dict":
            return results
        (result,) = results.values()
        if output == "tf":
            import tensorflow as tf

            return tf.convert_to_tensor(result)
        return result

    def stream(
        self,
        texts: Iterable[Any] | os.PathLike[str],
        *,
        chunk_size: int = WINDOW,
        show_progress: bool | None = False,
    ) -> Iterator[np.ndarray]:
        """Embed a corpus of any size: yield arrays, chunk by chunk, as `embed_stream` does.

        Args:
            texts: As in `embed`.
            chunk_size: int. As in `embed_stream`. Defaults to 4,096.
            show_progress: bool or `None`. As in `embed`. Defaults to `False`.

        Yields:
            What `embed_stream` yields.

        Raises:
            ValueError: as `embed_stream`.
        """
        check_count("chunk_size", chunk_size)
        texts, total = open_texts(texts)
        runner = self._runner()
        form = VectorFormat(runner.dims, **self._form, calibrate=False)

        def chunks():
            try:
                with progress_bar(show_progress, total) as advance:
                    for vectors in runner.stream(texts, chunk_size, advance):
                        yield form.chunk(vectors)[0]
            finally:  # also where the caller has seen enough
                runner.warn_about_trimmed(stacklevel=3)

        return chunks()


_copies: dict[str, Embedder] = {}  # by the key of the original
_copying = threading.Lock()


def _unpickled(key: str, model, options: dict[str, Any]) -> Embedder:
    """Return this process's copy of an embedder."""
    with _copying:
        if key not in _copies:
            while len(_copies) >= _KEPT_COPIES:
                del _copies[next(iter(_copies))]
            _copies[key] = Embedder(model, **options)
            _copies[key]._key = key
        return _copies[key]


def _set_threads(count: int) -> None:
    """Let TensorFlow, and PyTorch where it is the backend, compute with so many threads."""
    import tensorflow as tf

    backend = keras.backend.backend()
    if backend == "jax":
        raise ValueError("`threads` has no effect under JAX: restrict the process to cores (taskset) instead.")
    settings = tf.config.threading
    if (settings.get_intra_op_parallelism_threads(), settings.get_inter_op_parallelism_threads()) != (count, count):
        try:
            settings.set_intra_op_parallelism_threads(count)
            settings.set_inter_op_parallelism_threads(count)
        except RuntimeError as error:
            raise ValueError(
                f"`threads`={count} comes too late: TensorFlow has computed in this process already. Load the embedder "
                "first, or leave `threads` out."
            ) from error
    if backend == "torch":
        import torch

        torch.set_num_threads(count)
