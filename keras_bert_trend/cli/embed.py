"""`keras-bert-trend embed`: a file of texts to a file of vectors, in bounded memory, resumed where it was stopped."""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from typing import Any

from keras_bert_trend.cli.options import (
    UsageError,
    add_model_options,
    add_pooling_option,
    output_suffix,
    positive,
    refuse_existing,
    shows_progress,
)
from keras_bert_trend.cli.reading import FORMATS_NOTE, Input, add_format_options, open_texts
from keras_bert_trend.cli.start import import_tensorflow

HELP = "many texts to vectors"
DESCRIPTION = f"""\
Embed the texts of a file, row i for text i.

{FORMATS_NOTE}
Output by its suffix: .npy, .npz (array `embeddings`; with int8 also `ranges`), .parquet (`text`, `embedding`; the extra
`parquet`), .jsonl (the same). An input without texts gives no rows. Memory is bounded by --chunk-size,
not by the corpus.

A run that was stopped leaves OUT.partial and nothing under the name OUT; the same command goes on from there, and gives
what an uninterrupted run gives. Other settings or another input are refused; --restart throws OUT.partial away.
"""
EPILOG = """\
examples:
  keras-bert-trend embed messages.txt --output vectors.npy
  keras-bert-trend embed messages.tsv --column message --output vectors.parquet --pooling last_four_sum --normalize
  keras-bert-trend embed questions.jsonl --field question --output vectors.jsonl --pooling mean,max --precision float16
  cut -f2 messages.tsv | keras-bert-trend embed - --output vectors.npz --precision int8
"""
PRECISIONS = ("float32", "float16", "int8", "binary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument("file", metavar="FILE", help="the texts; - is the standard input")
    parser.add_argument("--output", required=True, metavar="OUT", help=".npy, .npz, .parquet or .jsonl")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument("--restart", action="store_true", help="begin anew where a stopped run could go on")
    group = parser.add_argument_group("input")
    add_format_options(group)
    group.add_argument(
        "--column", "--field", metavar="NAME", help="where the text is (default: the only one; of JSONL: text)"
    )
    group.add_argument("--pair-column", "--pair-field", metavar="NAME", help="the second text of pairs")
    add_model_options(parser)
    group = parser.add_argument_group("vectors")
    add_pooling_option(group, None, "what is pooled, several are concatenated (default: trend)")
    group.add_argument(
        "--max-length", "--sequence-length", type=positive, metavar="N", help="tokens a text is trimmed to"
    )
    group.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    group.add_argument("--truncate-dim", type=positive, metavar="N", help="keep the first N dimensions")
    group.add_argument("--precision", choices=PRECISIONS, default="float32", help="(default: float32)")
    group.add_argument("--ranges", metavar="FILE", help="for int8: a .npy (2, dim) of least and greatest values")
    group = parser.add_argument_group("computing")
    group.add_argument("--batch-size", type=positive, default=64, metavar="N", help="texts per batch (default: 64)")
    group.add_argument("--chunk-size", type=positive, default=4096, metavar="N", help="texts at once (default: 4096)")


def run(arguments: argparse.Namespace) -> None:
    """Embed; see the module."""
    from keras_bert_trend.cli.vector_files import SUFFIXES, import_pyarrow

    suffix = output_suffix(arguments.output, SUFFIXES)
    if suffix == ".parquet":
        import_pyarrow()  # rather missed now than at the end
    if arguments.ranges and arguments.precision != "int8":
        raise UsageError("--ranges is for --precision int8.")
    source = open_texts(arguments.file, arguments.format, arguments.column, arguments.pair_column, arguments.header)
    refuse_existing(arguments)
    if source.path != "-":
        _check_readable(source)
    folder = f"{arguments.output}.partial"
    if arguments.restart:
        shutil.rmtree(folder, ignore_errors=True)
    import_tensorflow(arguments.debug)
    _embed(arguments, source, suffix, folder)


def _check_readable(source: Input) -> None:
    """Rather miss the file, or the column, now than after TensorFlow's start."""
    if not stat.S_ISFIFO(os.stat(source.path).st_mode):  # a pipe can be read once only
        with contextlib.closing(source.rows()) as rows:
            next(rows, None)


def _embed(arguments: argparse.Namespace, source: Input, suffix: str, folder: str) -> None:
    from keras_bert_trend.cli.models import load_layer
    from keras_bert_trend.cli.partial import PartialVectors
    from keras_bert_trend.cli.vector_files import SUFFIXES, quantize_file, write_vectors
    from keras_bert_trend.embedding.embed import embed

    layer = load_layer(arguments)
    options = {
        "pooling": arguments.pooling,
        "batch_size": arguments.batch_size,
        "max_length": arguments.max_length,
        "normalize": arguments.normalize,
        "truncate_dim": arguments.truncate_dim,
        "precision": arguments.precision,
    }
    if arguments.ranges:
        import numpy as np

        options["ranges"] = np.load(arguments.ranges)
    waits = arguments.precision == "int8" and not arguments.ranges  # the vectors themselves give the ranges, at the end
    if waits:
        options["precision"] = "float32"
    nothing = embed([], layer, **options)  # checks the options, and says width and dtype
    settings = _settings(arguments, source, layer) | {"ranges": repr(options.get("ranges"))}
    partial = PartialVectors(folder, settings, nothing.shape[1], nothing.dtype, keep_texts=SUFFIXES[suffix])
    try:
        with contextlib.closing(partial):
            _compute(arguments, source, layer, options, partial)
            vectors_file, extra = partial.finish(), {}
            if waits:
                vectors_file, extra["ranges"] = quantize_file(vectors_file)
            os.replace(write_vectors(suffix, partial, vectors_file, extra), arguments.output)
            partial.remove()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{partial.rows} texts are done; the same command goes on from there.") from None
    print(f"{partial.rows} texts → {arguments.output}: {arguments.precision}, {partial.dim} wide", file=sys.stderr)


def _compute(arguments, source: Input, layer, options: dict[str, Any], partial) -> None:
    """Embed the texts that `partial` does not have yet, and add them."""
    from keras_bert_trend.embedding.embed import embed_stream

    rows = source.rows()
    partial.skip(rows)
    if partial.rows:
        print(f"going on after {partial.rows} texts", file=sys.stderr)
    progress = shows_progress(arguments)
    total = source.count() if progress else None
    taken: collections.deque = collections.deque()  # texts that the stream has taken and not given back as vectors
    texts = _noted(rows, taken)
    if total is not None:
        texts = _Counted(texts, max(total - partial.rows, 0))
    stream = embed_stream(texts, layer, chunk_size=arguments.chunk_size, show_progress=progress, **options)
    with contextlib.closing(stream):
        for vectors in stream:
            partial.append([taken.popleft() for _ in range(len(vectors))], vectors)


def _noted(rows: Iterator[tuple[str, ...]], taken: collections.deque) -> Iterator[str | tuple[str, ...]]:
    for row in rows:
        taken.append(row)
        yield row if len(row) > 1 else row[0]


class _Counted:
    """Texts whose number is known: a progress bar then has an end."""

    def __init__(self, texts: Iterator, total: int) -> None:
        self._texts, self._total = texts, total

    def __iter__(self) -> Iterator:
        return self._texts

    def __len__(self) -> int:
        return self._total


def _settings(arguments: argparse.Namespace, source: Input, layer) -> dict[str, Any]:
    """Return all that decides the vectors beside the texts."""
    import tensorflow as tf

    from keras_bert_trend.version import __version__

    return {
        "model": _fingerprint(layer),
        "texts per row": len(source.columns),
        "pooling": arguments.pooling or repr(layer.pooling.get_config()),
        "max_length": arguments.max_length,
        "normalize": arguments.normalize,
        "truncate_dim": arguments.truncate_dim,
        "precision": arguments.precision,
        "batch_size": arguments.batch_size,
        "chunk_size": arguments.chunk_size,
        "version": __version__,
        "tensorflow": tf.__version__,
    }


def _fingerprint(layer) -> str:
    """Return a checksum of the weights and of how texts become ids: a handle's folder may have changed."""
    preprocessor = layer.preprocessor
    digest = hashlib.blake2b(preprocessor.vocabulary.to_bytes(), digest_size=16)
    digest.update(repr((sorted(layer.encoder.config.to_dict().items()), preprocessor.lower_case)).encode())
    for name, array in sorted(layer.encoder.named_weights().items()):
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
