"""Bulk embedding on Apache Beam: a model handler, a transform, and a program (extra `beam`).

python -m keras_bert_trend.distributed.beam --input 'texts-*.jsonl' --output vectors --runner DirectRunner
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult
from apache_beam.options.pipeline_options import PipelineOptions

from keras_bert_trend._utils import check_count
from keras_bert_trend.embedding import Embedder
from keras_bert_trend.embedding.vectors import PRECISIONS
from keras_bert_trend.version import __version__

_BATCH = 1024  # texts that are sorted by length together
_SCHEMA_LINES = 1000  # of JSON, that decide the columns of the output
_METRICS = "keras_bert_trend"


def _count(**counts: int) -> None:
    for name, count in counts.items():
        Metrics.counter(_METRICS, name).inc(int(count))


def _embed(embedder: Embedder, texts: Sequence[str | bytes], lengths: np.ndarray) -> np.ndarray:
    """Embed texts of these token counts, and count what was done."""
    start = time.perf_counter()
    vectors = embedder(texts)
    kept = np.minimum(lengths, embedder.max_length) if embedder.long_texts == "truncate" else lengths
    _count(
        texts=len(texts),
        tokens=kept.sum(),
        trimmed=np.count_nonzero(kept < lengths),
        milliseconds=round(1000 * (time.perf_counter() - start)),
    )
    return vectors


class TextEmbeddingHandler(ModelHandler[str, PredictionResult, Embedder]):
    """Embed texts by Beam's `RunInference`.

    Beam's own TensorFlow handler loads no Keras 3 model that takes strings; this one needs none of its options. Texts
    are batched by length within a batch of Beam's, so large batches are best.

    Example:
        >>> handler = TextEmbeddingHandler(Embedder("minilm", pooling="mean", threads=1))
        >>> results = texts | RunInference(handler)  # `PredictionResult`s: example, inference (a vector), model_id

    Args:
        embedder: `Embedder`. Loaded once in every worker process. `threads=1` suits workers with a core each.
        **kwargs: What `ModelHandler` takes: `min_batch_size` and `max_batch_size` (both 1,024 by default),
            `large_model`, `model_copies`.
    """

    def __init__(self, embedder: Embedder, **kwargs: Any) -> None:
        super().__init__(**{"min_batch_size": _BATCH, "max_batch_size": _BATCH, **kwargs})
        self._embedder = embedder

    def load_model(self) -> Embedder:
        return self._embedder.warm_up()

    def run_inference(
        self, batch: Sequence[str], model: Embedder, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        vectors = _embed(model, batch, model.token_counts(batch))
        name = str(model.model)
        return [PredictionResult(text, vector, name) for text, vector in zip(batch, vectors, strict=True)]

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        if inference_args:
            raise ValueError(f"TextEmbeddingHandler takes no `inference_args`, got {inference_args!r}.")

    def get_num_bytes(self, batch: Sequence[str]) -> int:
        return sum(map(len, batch))

    def get_metrics_namespace(self) -> str:
        return _METRICS


class Rejected(NamedTuple):
    """What was not embedded, and why.

    Attributes:
        key: The text's key.
        text: The text, or what stood in its place.
        reason: str.
    """

    key: Any
    text: Any
    reason: str


class EmbedTexts(beam.PTransform):
    """Embed the texts of `(key, text)` pairs.

    Texts are spread over the workers first, whatever a runner has fused before, and batched by length. The metrics of
    the namespace `keras_bert_trend` count `texts`, `tokens`, `trimmed` and `rejected` texts and `milliseconds`.

    Example:
        >>> results = keyed_texts | EmbedTexts(Embedder("minilm", pooling="mean", threads=1))
        >>> results.embeddings  # pairs of a key and a vector
        >>> results.rejected  # `Rejected`: what is not a text, and with `truncate=False` texts that are too long

    Args:
        embedder: `Embedder`. Loaded once in every worker process.
        batch_size: int. The number of texts that are sorted by length together, not the model's batch size. Defaults
            to 1,024.
    """

    def __init__(self, embedder: Embedder, batch_size: int = _BATCH) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        self._embedder, self._batch_size = embedder, batch_size

    def expand(self, keyed_texts):
        return (
            keyed_texts
            | "Spread" >> beam.Reshuffle()
            | "Batch" >> beam.BatchElements(self._batch_size, self._batch_size)
            | "Embed" >> beam.ParDo(_EmbedBatch(self._embedder)).with_outputs("rejected", main="embeddings")
        )


class _EmbedBatch(beam.DoFn):
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def setup(self) -> None:
        self._embedder.warm_up()

    def process(self, batch: Sequence[tuple[Any, Any]]) -> Iterator[Any]:
        good = []
        for key, text in batch:
            reason = _reason_to_reject(text)
            if reason is None:
                good.append((key, text))
            else:
                yield _rejected(key, text, reason)
        lengths = self._embedder.token_counts([text for _, text in good])
        fits = (lengths <= self._embedder.max_length) | (self._embedder.long_texts != "error")
        for position in np.flatnonzero(~fits):
            reason = f"{lengths[position]} tokens, the limit is {self._embedder.max_length}"
            yield _rejected(*good[position], reason)
        good = list(itertools.compress(good, fits))
        vectors = _embed(self._embedder, [text for _, text in good], lengths[fits])
        for (key, _), vector in zip(good, vectors, strict=True):
            yield key, vector


def _rejected(key, text, reason: str) -> beam.pvalue.TaggedOutput:
    _count(rejected=1)
    return beam.pvalue.TaggedOutput("rejected", Rejected(key, text, reason))


def _reason_to_reject(text) -> str | None:
    if not isinstance(text, str | bytes):
        return f"not a text: {type(text).__name__}"
    try:
        str(text, "utf-8") if isinstance(text, bytes) else None  # Beam carries no `str` that is not valid
    except UnicodeError as error:
        return f"not valid Unicode: {error}"
    return None


# The program: records with a text to records with an embedding


class _ReadRecords(beam.PTransform):
    """Read pairs of a record, a dict with the columns of `schema`, and its text; `rejected` has what is no record."""

    def __init__(self, pattern: str, column: str, schema: pa.Schema) -> None:
        super().__init__()
        self._pattern, self._column, self._schema = pattern, column, schema

    def expand(self, pipeline):
        if _suffix(self._pattern) == "parquet":
            rows = pipeline | beam.io.ReadFromParquet(self._pattern)
        else:
            rows = pipeline | beam.io.ReadFromText(self._pattern, coder=beam.coders.BytesCoder())
        record = _AsRecord(_suffix(self._pattern), self._column, self._schema)
        return rows | "Record" >> beam.ParDo(record).with_outputs("rejected", main="records")


class _AsRecord(beam.DoFn):
    def __init__(self, suffix: str, column: str, schema: pa.Schema) -> None:
        self._suffix, self._column, self._schema = suffix, column, schema

    def process(self, row: bytes | dict[str, Any]) -> Iterator[Any]:
        try:
            if self._suffix == "jsonl":
                row = json.loads(row)
                self._check(row)
            elif self._suffix == "text":
                row = {self._column: row.decode("utf-8-sig")}
        except (ValueError, TypeError, OverflowError, RecursionError) as error:  # of JSON, UTF-8 and Arrow
            line = row.decode(errors="replace") if isinstance(row, bytes) else row
            yield _rejected(line, None, f"{type(error).__name__}: {error}")
        else:
            yield row, row[self._column]

    def _check(self, row) -> None:
        json.dumps(row, ensure_ascii=False).encode()  # raises: JSON may escape what is not valid Unicode
        if not isinstance(row, dict):
            raise ValueError(f"not a JSON object: {type(row).__name__}")
        missing, unknown = {self._column} - set(row), set(row) - set(self._schema.names)
        if missing or unknown:
            raise ValueError(f"fields missing: {sorted(missing)}, unknown in the first lines: {sorted(unknown)}")
        for name, value in row.items():
            if name != self._column:  # of texts others take care
                pa.scalar(value, self._schema.field(name).type)


def _suffix(pattern: str) -> str:
    suffix = pattern.rpartition(".")[2]
    return {"parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}.get(suffix, "text")


def _schema_of(path: str, column: str) -> pa.Schema:
    """Return the columns of the input, from its first file."""
    suffix = _suffix(path)
    if suffix == "text":
        return pa.schema([("text", pa.string())])
    with FileSystems.open(path) as file:
        if suffix == "parquet":
            return pyarrow.parquet.read_schema(file).remove_metadata()
        values = collections.defaultdict(list)
        for line in itertools.islice(iter(file.readline, b""), _SCHEMA_LINES):
            with contextlib.suppress(ValueError, RecursionError):  # such lines are rejected later, with their reason
                row = json.loads(line)
                for name in row if isinstance(row, dict) else ():
                    values[name].append(row[name])
    values[column] = [""] if column in values else []
    return pa.schema([(name, _type_of(column)) for name, column in values.items() if column])


def _type_of(values: list) -> pa.DataType:
    try:
        return pa.infer_type(values)
    except pa.ArrowInvalid:  # no type for all of them: that of the first, and the others are rejected
        return pa.infer_type(values[:1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; the options that it does not know are the pipeline's."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_bert_trend.distributed.beam",
        description="Embed texts on Apache Beam. Other options are Beam's own: --runner, --direct_num_workers …",
    )
    parser.add_argument("--input", required=True, help="files: .jsonl, .parquet, or text with one text a line")
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument("--column", default="text", help="the column or field with the text (default: text)")
    parser.add_argument("--model", default="minilm", help="a handle or a .keras file (default: minilm)")
    parser.add_argument("--pooling", help="one or several, separated by commas (default: the model's)")
    parser.add_argument("--max-length", type=int, help="tokens per text (default: the model's)")
    parser.add_argument("--reject-long", action="store_true", help="reject longer texts instead of trimming them")
    parser.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    parser.add_argument("--precision", choices=[p for p in PRECISIONS if p != "int8"], default="float32")
    parser.add_argument("--threads", type=int, help="per worker process (default: all cores; 1 for a worker a core)")
    options, rest = parser.parse_known_args(arguments)
    written = [name for name in ("embeddings", "rejected") if _files(FileSystems.join(options.output, f"{name}-*"))]
    if written:
        parser.error(f"--output {options.output} has {' and '.join(written)} already")
    paths = _files(options.input)
    if not paths:
        parser.error(f"--input {options.input} matches no file")
    schema = _schema_of(paths[0], options.column)
    if options.column not in schema.names:
        parser.error(f"--column {options.column} is not in {paths[0]}, which has {schema.names}")
    if "embedding" in schema.names:
        parser.error(f"{paths[0]} has a column `embedding` already")
    embedder = Embedder(
        options.model,
        pooling=options.pooling and options.pooling.split(","),
        max_length=options.max_length,
        truncate=not options.reject_long,
        normalize=options.normalize,
        precision=options.precision,
        threads=options.threads,
    )
    number = pa.uint8() if options.precision == "binary" else pa.type_for_alias(options.precision)
    facts = {"model": options.model, "pooling": options.pooling or "the model's own", "version": __version__}
    pipeline = beam.Pipeline(options=PipelineOptions(rest))
    read = pipeline | "Read" >> _ReadRecords(options.input, options.column, schema)
    results = read.records | "Embed" >> EmbedTexts(embedder)
    schema = schema.append(pa.field("embedding", pa.list_(number))).with_metadata(
        {f"keras_bert_trend.{name}": value for name, value in facts.items()}
    )
    (
        results.embeddings
        | "Row" >> beam.MapTuple(lambda record, vector: {**record, "embedding": vector})
        | "Write"
        >> beam.io.WriteToParquet(FileSystems.join(options.output, "embeddings"), schema, file_name_suffix=".parquet")
    )
    (
        (read.rejected, results.rejected)
        | "All rejected" >> beam.Flatten()
        | "Reason" >> beam.Map(_as_json)
        | "Write rejected"
        >> beam.io.WriteToText(FileSystems.join(options.output, "rejected"), ".jsonl", skip_if_empty=True)
    )
    result = pipeline.run()
    result.wait_until_finish()
    counted = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(_METRICS))["counters"]
    print({counter.key.metric.name: counter.result for counter in counted}, file=sys.stderr)


def _files(pattern: str) -> list[str]:
    return [found.path for found in FileSystems.match([pattern])[0].metadata_list]


def _as_json(rejected: Rejected) -> str:
    return json.dumps({"record": rejected.key, "reason": rejected.reason}, default=repr)


if __name__ == "__main__":
    # Under its own name: Beam would pickle what is in `__main__` by value.
    from keras_bert_trend.distributed import beam as program

    program.main()
