"""Read what a TF Hub preprocessing SavedModel does to texts, without executing it: vocabulary, casing, length."""

from __future__ import annotations

from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key
from keras_bert_trend.sources.saved_model.files import SavedModelFiles
from keras_bert_trend.sources.source import TextSource, UnsupportedArchitectureError, read_vocabulary_file

_WORDPIECE = "WordpieceTokenizeWithOffsets"
_FAST_WORDPIECE = "FastWordpieceTokenizeWithOffsets"
_SENTENCEPIECE = ("SentencepieceTokenizeOp", "SentencepieceTokenizeWithOffsetsOp")
_ACCENTS = rb"\p{Mn}"
_DROPPED = rb"\x{fffd}"  # in the pattern of what Hugging Face's `BertNormalizer` drops


def read_tf_hub_preprocessing(files: SavedModelFiles) -> TextSource:
    """Read a preprocessing model: strings in, the encoder's three inputs out.

    The ops between the strings and the tokens say what is done to them: `CaseFoldUTF8` lower-cases, `NormalizeUTF8`
    with the removal of non-spacing marks strips accents, the tokenizer's op tells WordPiece from SentencePiece.

    Args:
        files: `SavedModelFiles`. The model.

    Raises:
        ValueError: if its functions cannot be read, or its vocabulary is missing.
        UnsupportedArchitectureError: if it cuts texts into tokens in another way.
    """
    graph = Dataflow(files, files.function_for_inference())
    if graph.select(_WORDPIECE):
        vocabulary = _wordpiece_vocabulary(files, graph)
    elif graph.select(*_SENTENCEPIECE):
        vocabulary = _sentencepiece_model(files)
    else:
        raise UnsupportedArchitectureError(
            f"{files.path!r} is not a preprocessing model that this package reproduces: "
            f"{_what_it_does_instead(graph)}. Supported are those of TF Hub that use BertTokenizer or "
            "SentencepieceTokenizer. Give the model's vocab.txt as `vocabulary`, and `lower_case`."
        )
    return TextSource(
        vocabulary=vocabulary,
        lower_case=bool(graph.select("CaseFoldUTF8", "StringLower")),
        strip_accents=bool(graph.select("NormalizeUTF8")) and _replaces(files, _ACCENTS),
        normalization="bert" if _replaces(files, _DROPPED) else "tf_text",
        sequence_length=_sequence_length(files),
        origin=files.path,
    )


def is_preprocessing(files: SavedModelFiles) -> bool:
    """Whether a SavedModel's `serving_default` takes strings."""
    from tensorflow.python.framework import dtypes

    signature = files.signature("serving_default")
    kinds = {tensor.dtype for tensor in signature.inputs.values()} if signature is not None else set()
    return kinds == {dtypes.string.as_datatype_enum}


def _what_it_does_instead(graph: Dataflow) -> str:
    if graph.select(_FAST_WORDPIECE):
        return "FastBertTokenizer keeps its vocabulary compiled into a table that cannot be read back"
    return f"it uses none of the ops {[_WORDPIECE, *_SENTENCEPIECE]}"


def _wordpiece_vocabulary(files: SavedModelFiles, graph: Dataflow) -> tuple[str, ...]:
    """Follow the lookup table behind the tokenizer to the file it is filled from."""
    (tokenizer,) = graph.select(_WORDPIECE)[:1]
    tables: list[Key] = [key for key in graph.nodes[tokenizer].inputs if key[0] == "variable"]
    for _, table in tables:
        initializer = files.child("_initializer", table)
        asset = None if initializer is None else files.asset("_filename", initializer)
        if asset is not None:
            return read_vocabulary_file(asset)
    raise ValueError(f"{files.path!r}: the tokenizer's lookup table is not filled from a file of the SavedModel.")


def _sentencepiece_model(files: SavedModelFiles) -> bytes:
    """Return the serialised model that the tokenizer's resource is made of; it is an attribute of an op."""
    models = {bytes(node.attr["model"].s) for node in files.all_nodes() if node.op == "SentencepieceOp"} - {b""}
    if len(models) != 1:
        raise ValueError(f"{files.path!r} must hold one SentencePiece model, found {len(models)}.")
    return models.pop()


def _replaces(files: SavedModelFiles, pattern: bytes) -> bool:
    return any(pattern in node.attr["pattern"].s for node in files.all_nodes() if node.op == "StaticRegexReplace")


def _sequence_length(files: SavedModelFiles) -> int | None:
    """Return the length that the model pads to, if its signature says so."""
    outputs = files.signature("serving_default").outputs.values()
    lengths = {tensor.tensor_shape.dim[1].size for tensor in outputs if len(tensor.tensor_shape.dim) == 2}
    return lengths.pop() if len(lengths) == 1 and min(lengths) > 0 else None
