"""`keras-bert-trend embed`: a file of texts to a file of vectors, in bounded memory, resumed where it was stopped."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from keras_bert_trend._utils import put_in_place
from keras_bert_trend.cli.models import load_layer
from keras_bert_trend.cli.options import UsageError, add_model_options, add_poolings_option, positive
from keras_bert_trend.cli.output import add_output_options, check_output
from keras_bert_trend.cli.partial import PartialVectors
from keras_bert_trend.cli.reading import FORMATS_NOTE, TextFile, add_text_options, open_texts
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.cli.vector_files import SUFFIXES, import_pyarrow, write_vectors
from keras_bert_trend.embedding.names import ComputeDtype, LongTexts
from keras_bert_trend.embedding.vectors import PRECISIONS
from keras_bert_trend.version import __version__

HELP = "turn many texts into vectors"
DESCRIPTION = f"""\
Embed the texts of a file: row i of the output is the vector of text i.

{FORMATS_NOTE}
The suffix of OUT decides its format: .npy; .npz (array `embeddings`, with int8 also `ranges`); .parquet (`text`,
`embedding`; needs the extra `parquet`); .jsonl (the same fields). An input without texts gives no rows. Memory grows
with --chunk-size, not with the input.

A run that is stopped leaves OUT.partial, and nothing at OUT. The same command goes on from there, and gives the same
file as an uninterrupted run. It refuses other settings and another input; --restart forgets what OUT.partial has.
"""
EPILOG = """\
examples:
  keras-bert-trend embed messages.txt --output vectors.npy
  keras-bert-trend embed messages.tsv --column message --output vectors.parquet --pooling last_four_sum --normalize
  keras-bert-trend embed questions.jsonl --field question --output vectors.jsonl --pooling mean,max --precision float16
  cut -f2 messages.tsv | keras-bert-trend embed - --output vectors.npz --precision int8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the texts; - is standard input")
    add_output_options(parser, "OUT", ".npy, .npz, .parquet or .jsonl", required=True)
    parser.add_argument("--restart", action="store_true", help="begin anew, even if OUT.partial could go on")
    add_text_options(parser.add_argument_group("input"))
    add_model_options(parser)
    group = parser.add_argument_group("vectors")
    add_poolings_option(
        group, "what to pool, several are concatenated (default: that of the model; smooth_trend for a handle)"
    )
    group.add_argument(
        "--max-length", "--sequence-length", type=positive, metavar="N", help="tokens of a text, at most"
    )
    group.add_argument(
        "--long-texts",
        choices=get_args(LongTexts),
        help="trim longer texts, refuse them, or average windows of them: all, or the first and the last "
        "(default: that of the model, else truncate)",
    )
    group.add_argument(
        "--stride", type=positive, metavar="N", help="tokens from window to window (default: 3/4 of a window)"
    )
    group.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    group.add_argument("--truncate-dim", type=positive, metavar="N", help="keep the first N dimensions")
    group.add_argument("--precision", choices=PRECISIONS, default="float32", help="(default: float32)")
    group.add_argument("--ranges", metavar="FILE", help="for int8: a .npy (2, dim) of least and greatest values")
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--compute-dtype", choices=get_args(ComputeDtype), help="of matrix products (default: that of the model)"
    )
    group.add_argument("--batch-size", type=positive, default=64, metavar="N", help="texts per batch (default: 64)")
    group.add_argument("--chunk-size", type=positive, default=4096, metavar="N", help="texts at once (default: 4096)")


def run(arguments: argparse.Namespace) -> None:
    suffix = check_output(arguments, tuple(SUFFIXES))
    if suffix == ".parquet":
        import_pyarrow()  # if it is missing, say so now
    ranges = _read_ranges(arguments)
    source = open_texts(arguments.file, arguments)
    _check_readable(source)
    folder = f"{arguments.output}.partial"
    import_tensorflow(arguments.debug)
    _embed(arguments, source, ranges, suffix, folder)


def _read_ranges(arguments: argparse.Namespace) -> np.ndarray | None:
    path = arguments.ranges
    if path is None:
        return None
    if arguments.precision != "int8":
        raise UsageError("--ranges is for --precision int8. Give both or neither.")
    try:
        ranges = np.load(path)
        least, greatest = ranges  # a wrong shape raises too
        ordered = ranges.ndim == 2 and bool(np.all((least <= greatest) & np.isfinite(least) & np.isfinite(greatest)))
    except OSError:
        raise
    except Exception:  # NumPy raises many things where a file is not what it should be
        ordered = False
    if not ordered:
        raise UsageError(
            f"--ranges {path!r} must be a .npy file of finite numbers (2, dim): the least and the greatest value of "
            "each dimension. The .npz file of an int8 run has them as `ranges`."
        )
    return ranges


def _check_readable(source: TextFile) -> None:
    """Fail now, not after TensorFlow's start, if the file or its column does not exist."""
    if source.path != "-" and not stat.S_ISFIFO(os.stat(source.path).st_mode):  # a pipe can be read only once
        with contextlib.closing(source.rows()) as rows:
            next(rows, None)


def _embed(
    arguments: argparse.Namespace, source: TextFile, ranges: np.ndarray | None, suffix: str, folder: str
) -> None:
    from keras_bert_trend.embedding.embed import embed

    layer = load_layer(arguments)
    quantize = arguments.precision == "int8" and ranges is None  # once all vectors are known
    options = {
        "pooling": arguments.pooling,
        "batch_size": arguments.batch_size,
        "max_length": arguments.max_length,
        "long_texts": arguments.long_texts,
        "stride": arguments.stride,
        "compute_dtype": arguments.compute_dtype,
        "normalize": arguments.normalize,
        "truncate_dim": arguments.truncate_dim,
        "precision": "float32" if quantize else arguments.precision,
        "ranges": ranges,
    }
    nothing = embed([], layer, **options)  # checks the options, and has the width and the dtype
    settings = _settings(arguments, source, ranges, layer)
    keep_texts, restart = SUFFIXES[suffix], arguments.restart
    partial = PartialVectors(folder, settings, nothing.shape[1], nothing.dtype, keep_texts, restart)
    try:
        with contextlib.closing(partial):
            _compute(arguments, source, layer, options, partial)
            put_in_place(write_vectors(suffix, partial, quantize), os.path.abspath(arguments.output))
            partial.remove()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{partial.rows} texts are done; the same command goes on from there.") from None
    print(f"{partial.rows} texts → {arguments.output}: {arguments.precision}, {partial.dim} wide", file=sys.stderr)


def _compute(
    arguments: argparse.Namespace, source: TextFile, layer, options: dict[str, Any], partial: PartialVectors
) -> None:
    """Embed the texts that `partial` does not have yet, and add them."""
    from keras_bert_trend.embedding.embed import embed_stream

    rows = source.rows()
    partial.skip(rows)
    if partial.rows:
        print(f"going on after {partial.rows} texts", file=sys.stderr)
    rows, taken = itertools.tee(rows)  # holds the texts that the stream has taken and not given back as vectors
    texts = (row if len(row) > 1 else row[0] for row in taken)
    total = None if arguments.progress is False else source.count()
    if total is not None:
        texts = _Counted(texts, max(total - partial.rows, 0))
    stream = embed_stream(texts, layer, chunk_size=arguments.chunk_size, show_progress=arguments.progress, **options)
    with contextlib.closing(stream):
        for vectors in stream:
            partial.append(list(itertools.islice(rows, len(vectors))), vectors)


class _Counted:
    """Texts whose number is known, so that a progress bar has an end."""

    def __init__(self, texts: Iterator, total: int) -> None:
        self._texts, self._total = texts, total

    def __iter__(self) -> Iterator:
        return self._texts

    def __len__(self) -> int:
        return self._total


def _settings(arguments: argparse.Namespace, source: TextFile, ranges: np.ndarray | None, layer) -> dict[str, Any]:
    """Return everything but the texts that decides the vectors."""
    import tensorflow as tf

    return {
        "model": _fingerprint(layer),
        "texts per row": len(source.columns),
        "pooling": arguments.pooling or repr(layer.pooling.get_config()),
        "max_length": arguments.max_length,
        "long_texts": arguments.long_texts or layer.windows,
        "stride": arguments.stride or layer.stride,
        "compute_dtype": arguments.compute_dtype or layer.compute_dtype,
        "normalize": arguments.normalize,
        "truncate_dim": arguments.truncate_dim,
        "precision": arguments.precision,
        "ranges": None if ranges is None else hashlib.sha256(ranges.astype("float32").tobytes()).hexdigest(),
        "batch_size": arguments.batch_size,
        "chunk_size": arguments.chunk_size,
        "version": __version__,
        "tensorflow": tf.__version__,
    }


def _fingerprint(layer) -> str:
    """Return a checksum of the weights and the tokenisation: the model behind a handle may have changed."""
    preprocessor = layer.preprocessor
    digest = hashlib.blake2b(preprocessor.vocabulary.to_bytes(), digest_size=16)
    digest.update(repr((sorted(layer.encoder.config.to_dict().items()), preprocessor.lower_case)).encode())
    for name, array in sorted(layer.encoder.named_weights().items()):
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
