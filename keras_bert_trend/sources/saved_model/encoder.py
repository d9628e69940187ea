"""Read a BERT encoder out of a TF Hub SavedModel: what each variable is, and every constant, from the graph."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from keras_bert_trend.encoder.blocks import BLOCKS
from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key
from keras_bert_trend.sources.saved_model.doors import INPUTS, Door, find_doors, find_effect, find_meanings
from keras_bert_trend.sources.saved_model.files import SavedModelFiles
from keras_bert_trend.sources.saved_model.matching import Expression, Expressions, Match
from keras_bert_trend.sources.saved_model.patterns import MATMULS, MismatchError, Patterns
from keras_bert_trend.sources.saved_model.verification import find_difference
from keras_bert_trend.sources.source import (
    LazyWeights,
    Source,
    TextSource,
    UnsupportedArchitectureError,
    read_bytes,
    read_vocabulary_file,
)

# What a word in a variable's name says about an architecture that is not read, for the message only.
_OTHER_ARCHITECTURES = {"relative": "relative positions"}


def read_tf_hub_model(path: str) -> Source:
    """Read a TF Hub text encoder: BERT of any year, and whatever else has the formula of a known block.

    The graph behind `serving_default` is read from its outputs down to its inputs, and every expression in it has to
    be the one that stands there in the formula of one of `encoder/blocks/`. So each variable's role follows from its
    place, and the constants (activation, LayerNorm epsilon, mask constant, head count, dropout) from theirs. Names are
    not trusted: they differ between exporters, and pre-LayerNorm models have the names of post-LayerNorm ones. Nothing
    is executed. Other signatures, and calling the model, have to be the same computation, and all have to give what
    they say.

    Args:
        path: the SavedModel folder.

    Raises:
        ValueError: the folder is no readable TF2 SavedModel.
        UnsupportedArchitectureError: it is one, but it computes something else.
    """
    files = SavedModelFiles(path)
    reader = _read_all_doors(files)
    return Source(
        config=reader.config,
        weights=_weights(files, reader.variables),
        vocabulary=_vocabulary(files),
        **_text_flags(files),
        origin=path,
    )


def _read_all_doors(files: SavedModelFiles) -> _EncoderReader:
    """Read the encoder behind `serving_default`, and check that every other door leads to it too.

    Most exporters write the same graph once for each door: then its values have the same numbers, and are known.
    """
    numbers: dict[tuple, int] = {}
    doors = find_doors(files)
    first = _EncoderReader(files, next(doors))
    first.read()
    known = first.number_values(numbers)
    readers = [first, *(_EncoderReader(files, door) for door in doors)]
    called = next((reader.door.outputs for reader in readers if "pooled_output" in reader.door.outputs), ())
    last = f"encoder_outputs/{first.config.num_layers - 1}"
    for reader in readers:
        found = reader.graph.identify(numbers)
        if any(found[output] not in known for output in reader.graph.outputs):
            reader.read()
            if (reader.config, reader.variables) != (first.config, first.variables):
                raise reader.unsupported(f"{reader.door.name} leads to another encoder than {first.door.name}")
            known |= reader.number_values(numbers)
        meanings = find_meanings(reader.door, called)
        with_embedding = sum(m.startswith("encoder_outputs/") for m in meanings) > first.config.num_layers
        for key, name, meaning in zip(reader.graph.outputs, reader.door.outputs, meanings, strict=True):
            value = known[found[key]]
            if value != (_without_embedding(meaning) if with_embedding else meaning).replace("sequence_output", last):
                raise reader.unsupported(f"{reader.door.name} gives {value} as {name!r} ({meaning or 'unknown'})")
    return first


def _without_embedding(meaning: str) -> str:
    """Return what one of MobileBERT's `encoder_outputs` is here: it counts from the embedding output."""
    name, _, number = meaning.partition("/")
    if name != "encoder_outputs":
        return meaning
    return f"{name}/{int(number) - 1}" if int(number) else "embedding_output"


def read_tf_hub_text(files: SavedModelFiles) -> TextSource:
    """Read only how an encoder's texts become ids, whatever its architecture is.

    Raises:
        ValueError: the vocabulary or the casing is there, but cannot be read.
    """
    return TextSource(vocabulary=_vocabulary(files), **_text_flags(files), origin=files.path)


def _weights(files: SavedModelFiles, variables: dict[str, int]) -> LazyWeights:
    shapes = {role: _flat_shape(role, files.variable_shape(object_id)) for role, object_id in variables.items()}

    def read(role):
        import tensorflow as tf

        return tf.reshape(tf.cast(files.read_variable(variables[role]), tf.float32), shapes[role])

    return LazyWeights(shapes, read)


def _flat_shape(role: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a weight's shape without an axis for the heads: (in, heads, size), (heads, size) or (heads, size, out)."""
    if "attention/self/" in role:
        return (shape[0], math.prod(shape[1:])) if role.endswith("kernel") else (math.prod(shape),)
    if role.endswith("attention/output/dense/kernel"):
        return math.prod(shape[:-1]), shape[-1]
    return shape


def _vocabulary(files: SavedModelFiles) -> tuple[str, ...] | bytes | None:
    """Read the WordPiece tokens, or the SentencePiece model, that lie in `assets/`."""
    word_pieces, sentence_pieces = files.asset("vocab_file"), files.asset("sp_model_file")
    if word_pieces is not None:
        return read_vocabulary_file(word_pieces)
    return None if sentence_pieces is None else read_bytes(sentence_pieces)


def _text_flags(files: SavedModelFiles) -> dict[str, Any]:
    """Read what is done to texts: TF Hub's `do_lower_case`, and what `export_text_encoder` adds."""
    nodes = {name: files.child(name) for name in ("do_lower_case", "strip_accents", "bert_normalization")}
    flags = {name: bool(files.read_variable(node)) for name, node in nodes.items() if node in files.variable_names}
    bert = flags.get("bert_normalization")
    return {
        "lower_case": flags.get("do_lower_case"),
        "strip_accents": flags.get("strip_accents"),
        "normalization": None if bert is None else "bert" if bert else "tf_text",
    }


class _EncoderReader:
    """What one SavedModel's graph says about the encoder inside it.

    Attributes:
        door: the function that is read.
        config: the architecture, once it was read.
        variables: role (a google-research/bert name without `bert/`) → object id of the variable.
    """

    def __init__(self, files: SavedModelFiles, door: Door) -> None:
        self.files, self.door = files, door
        self.graph = Dataflow(files, door.function, door.arguments)
        if not self.graph.variables:
            raise self.unsupported(
                "its outputs depend on no variables (preprocessing models are for BertPreprocessor.from_handle)"
            )
        effect = find_effect(files, door.function)
        if effect:
            raise self.unsupported(f"{effect}, behind {door.name}")
        self._patterns = Patterns(self.graph, self._describe)
        self.variables: dict[str, int] = {}
        self._constants: dict[str, set] = {}
        self._arguments: dict[str, str] = {}
        self._form: tuple[str, dict] | None = None  # the blocks' kind and what decides its formula's form, once known

    def read(self) -> None:
        """Read the encoder, and check it.

        Raises:
            UnsupportedArchitectureError: it is none that is supported.
        """
        try:
            self.config = self._read()
        except MismatchError as error:
            raise self.unsupported(str(error)) from None

    def _read(self) -> BertConfig:
        pooled_output, key, pooler = self._pooler()
        blocks: list[Match] = []
        outputs: list[Key] = []
        while (embedding := self._embeddings(key)) is None:
            outputs.insert(0, key)
            blocks.insert(0, self._block(key, is_last=not blocks))
            key = blocks[0].source
        if not blocks:
            raise MismatchError("a model without transformer blocks is not a BERT")
        weights = [block.variables for block in blocks]
        share_layers = len(blocks) > 1 and all(each == weights[0] for each in weights)
        for match in (embedding, *blocks):
            for what, values in match.constants.items():
                self._constants[what] = self._constants.get(what, set()) | values
            for name, argument in match.arguments.items():
                if self._arguments.setdefault(name, argument) != argument:
                    raise MismatchError(f"both {self._arguments[name]!r} and {argument!r} are used as {name!r}")
        for i, block in enumerate(weights[:1] if share_layers else weights):
            for role, variable in block.items():
                self._assign(f"encoder/layer_{i}/{role}", variable)
        for role, variable in embedding.variables.items():
            self._assign(role, variable)
        for role, variable in pooler.items():
            self._assign(f"pooler/dense/{role}", variable)
        left_over = self.graph.variables - set(self.variables.values())
        if left_over:
            names = sorted(self.files.variable_names[i] for i in left_over)
            raise self.unsupported(f"its outputs depend on variables that a BERT has no place for: {names[:6]}")
        self._check_arguments()

        hidden_dropout, attention_dropout = self._dropout_rates()
        block, form = self._form
        own = BLOCKS[block].fields
        num_heads, head_size = self._only("head count", {self._heads(block.attention) for block in blocks})
        hidden_size = self._shape("embeddings/LayerNorm/gamma")[0]
        if "encoder/embedding_hidden_mapping_in/bias" in self.variables:
            hidden_size = self._shape("encoder/embedding_hidden_mapping_in/bias")[0]
        if "bottleneck_size" in own:
            form = {**form, "bottleneck_size": num_heads * head_size}
        elif num_heads * head_size != hidden_size:
            raise MismatchError(f"{num_heads} heads of size {head_size} are not as wide as the hidden states")
        if "normalization" in own:
            form = {**form, "normalization": self._only("normalization", self._constants["normalization"])}
        epsilons = self._constants.get("LayerNorm epsilon", {1e-12})
        word_shape, types = self._shape("embeddings/word_embeddings"), "embeddings/token_type_embeddings"
        config = BertConfig(
            vocab_size=word_shape[0],
            hidden_size=hidden_size,
            num_layers=len(blocks),
            num_heads=num_heads,
            intermediate_size=self._shape("encoder/layer_0/intermediate/dense/kernel")[-1],
            max_position_embeddings=self._shape("embeddings/position_embeddings")[0],
            type_vocab_size=self._shape(types)[0] if types in self.variables else 0,
            hidden_act=self._only("activation", self._constants["activation"]),
            layer_norm_epsilon=_shortest(self._only("LayerNorm epsilon", epsilons)),
            attention_mask_constant=_shortest(self._only("mask constant", self._constants["mask constant"])),
            hidden_dropout=hidden_dropout,
            attention_dropout=attention_dropout,
            pooler="tanh" if pooler else "identity",
            embedding_size=word_shape[1],
            share_layers=share_layers,
            block=block,
            **form,
        )
        named = {f"encoder_outputs/{i}": output for i, output in enumerate(outputs)}
        scores = {f"attention_scores/{i}": block.attention.weights for i, block in enumerate(blocks)}
        if not {self._patterns.plain(key) for key in self.graph.outputs} & set(scores.values()):
            scores = {}  # nobody is given them, and other notations have other axes inside
        self._landmarks = {"embedding_output": key}
        for i in range(len(blocks)):
            for values in (scores, named):
                self._landmarks |= {name: value for name, value in values.items() if name.endswith(f"/{i}")}
        self._landmarks["pooled_output"] = pooled_output
        self._verify(config)
        return config

    def _verify(self, config: BertConfig) -> None:
        difference = find_difference(
            self.graph,
            self._landmarks,
            self._outputs(),
            config,
            {role: (("variable", i), self.files.variable_shape(i)) for role, i in self.variables.items()},
            {name: ("argument", argument) for name, argument in self._arguments.items()},
        )
        if difference:
            raise self.unsupported(f"computed on made-up weights, its {difference}")

    def _outputs(self) -> dict[Key, str]:
        """Tell which of BERT's values each output is, but for its shape.

        Raises:
            UnsupportedArchitectureError: it is none of them.
        """
        plain = {self._patterns.plain(key): name for name, key in self._landmarks.items()}
        found = {key: plain.get(self._patterns.plain(key), "") for key in self.graph.outputs}
        for key, output in zip(self.graph.outputs, self.door.outputs, strict=True):
            if not found[key]:
                raise self.unsupported(
                    f"{self.door.name} gives an output {output!r}, {self._describe(key)}, which is none of a BERT's"
                )
        return found

    def number_values(self, numbers: dict[tuple, int]) -> dict[int, str]:
        """Return the numbers of the values that a BERT has names for, with these names; see `Dataflow.identify`."""
        found = self.graph.identify(numbers)
        return {found[key]: name for name, key in self._landmarks.items()} | {
            found[key]: name for key, name in self._outputs().items()
        }

    def _pooler(self) -> tuple[Key, Key, dict[str, Key]]:
        """Find `pooled_output`, the last hidden state, and the pooler's weights, if it has any."""
        for output in self.graph.outputs:
            try:
                dense = self._patterns.dense(self._patterns.tanh(output))
                pooler = {"kernel": dense.kernel, "bias": dense.bias}
                return output, self._patterns.first_token(dense.source), pooler
            except MismatchError:
                continue
        for output in self.graph.outputs:
            try:
                return output, self._patterns.first_token(output), {}
            except MismatchError:
                continue
        raise MismatchError("none of its outputs is a pooled_output, made of the first token's last hidden state")

    def _embeddings(self, key: Key) -> Match | None:
        """Read the embeddings from their output, or tell that it is none by returning `None`."""
        for block in BLOCKS if self._form is None else self._form[:1]:
            for form in BLOCKS[block].embedding_variants():
                try:
                    match = self._match(block, BLOCKS[block].embed(Expressions(None), SimpleNamespace(**form)), key)
                except MismatchError:
                    continue
                self._tell_words_from_types(match)
                return match
        return None

    def _tell_words_from_types(self, match: Match) -> None:
        """Two tables are looked up by inputs: there are more words than types."""
        pairs = (
            (match.variables, "embeddings/word_embeddings", "embeddings/token_type_embeddings"),
            (match.arguments, "input_word_ids", "input_type_ids"),
        )
        tables, words, types = pairs[0]
        if types not in tables or any(tables[name][1] not in self.files.variable_names for name in (words, types)):
            return
        if self._sizes(tables[words])[0] < self._sizes(tables[types])[0]:
            for named, one, other in pairs:
                named[one], named[other] = named[other], named[one]

    def _block(self, key: Key, is_last: bool) -> Match:
        """Read a transformer block from its output."""
        known = [self._form] if self._form else [(name, form) for name in BLOCKS for form in BLOCKS[name].variants()]
        problem = None
        for block, form in known:
            do, x = Expressions(None), Expression("input")
            try:
                match = self._match(block, BLOCKS[block].compute(do, x, SimpleNamespace(**form), is_last), key)
            except MismatchError as error:
                problem = error if problem is None or error.found > problem.found else problem
                continue
            self._form = block, form
            return match
        raise problem

    def _match(self, block: str, formula: Expression, key: Key) -> Match:
        match = Match(self._patterns, may_scale_only="normalization" in BLOCKS[block].fields)
        match.find(formula, key)
        return match

    def _heads(self, attention) -> tuple[int, int]:
        """Return head count and size: from the kernel's axes, or in 2019's flat kernels from the scale 1/√size."""
        shape = self._sizes(attention.query.kernel)
        size = shape[-1] if len(shape) == 3 else round(attention.scale**-2)
        if not math.isclose(attention.scale, size**-0.5, rel_tol=1e-6) or math.prod(shape[1:]) % size:
            raise MismatchError(f"attention is scaled by {attention.scale:.6g}, which is 1/sqrt(head size) for no head")
        return math.prod(shape[1:]) // size, size

    def _assign(self, role: str, key: Key) -> None:
        if key[0] != "variable" or key[1] not in self.files.variable_names:
            raise MismatchError(f"{self._describe(key)} stands where {role!r} is expected, which is a variable")
        if key[1] in self.variables.values():
            raise MismatchError(f"{self._describe(key)} is used more than once, also as {role!r}")
        if self.files.objects[key[1]].saveable_objects:
            raise MismatchError(f"{self._describe(key)} is restored by a function of the model, which is never run")
        self.files.check_variable(key[1])
        self.variables[role] = key[1]

    def _check_arguments(self) -> None:
        """Where the inputs have TF Hub's names, they must be used as these say."""
        used = set(self._arguments.values())
        if used <= set(INPUTS) and any(k != v for k, v in self._arguments.items()):
            raise self.unsupported(f"its inputs are used as {self._arguments}")
        if len(used) != len(self._arguments):
            raise self.unsupported(f"one input is used as several: {self._arguments}")

    def _only(self, what: str, values: set):
        """Return the one value that all blocks share."""
        if len(values) != 1:
            raise self.unsupported(f"its {what} is not the same everywhere: {sorted(values)}")
        return next(iter(values))

    def _shape(self, role: str) -> tuple[int, ...]:
        return self._sizes(("variable", self.variables[role]))

    def _sizes(self, key: Key) -> tuple[int, ...]:
        return self.files.variable_shape(key[1])

    def _describe(self, key: Key) -> str:
        """Name a value by its operation and the variables closest to it."""
        if key[0] == "variable":
            return f"the variable {self.files.variable_names.get(key[1], '?')!r}"
        if key[0] == "argument":
            return f"the input {key[1]!r}"
        near = self.graph.nearest([key], lambda k, _: k[0] == "variable")
        names = sorted(self.files.variable_names.get(k[1], "?") for k in near)
        return f"the {self.graph.nodes[key].op} that follows {names}"

    def _dropout_rates(self) -> tuple[float, float]:
        """Return (hidden, attention) dropout from the training functions; zero where those have none.

        TensorFlow's dropout keeps an element where `random_uniform >= rate`.
        """
        for function in self.files.root_call_functions():
            graph = Dataflow(self.files, function)
            hidden, attention = set(), set()
            for compare in graph.select("GreaterEqual"):
                rates = {graph.nodes[k].constant for k in graph.nodes[compare].inputs if k in graph.nodes} - {None}
                uniform = graph.nearest(
                    [compare], lambda _, node: node is not None and "RandomUniform" in node.op, stop=MATMULS
                )
                if len(rates) != 1 or rates == {0.0} or not uniform:
                    continue  # rate 0: the dropout inside the feed-forward that BERT does not have
                # The random tensor takes its shape from what it drops: a softmax, or a hidden state.
                dropped = graph.nearest(uniform, lambda _, node: node is not None and node.op in ("Softmax", *MATMULS))
                # Talking heads are mixed, by a product, between softmax and dropout.
                nearby = {
                    graph.nodes[k].op for key in dropped for k in (key, *graph.nodes[key].inputs) if k in graph.nodes
                }
                kind = attention if "Softmax" in nearby else hidden
                kind |= rates
            if hidden or attention:
                if len(hidden) > 1 or len(attention) > 1:
                    raise self.unsupported(f"its dropout rates differ: {sorted(hidden)}, {sorted(attention)}")
                return _shortest(next(iter(hidden), 0.0)), _shortest(next(iter(attention), 0.0))
        return 0.0, 0.0

    def unsupported(self, reason: str) -> UnsupportedArchitectureError:
        names = " ".join(self.files.variable_names[i] for i in self.graph.variables)
        found = [what for part, what in _OTHER_ARCHITECTURES.items() if part in names]
        return UnsupportedArchitectureError(
            f"{self.files.path!r} is not an encoder that this package reproduces"
            + (f"; it seems to have {' and '.join(found)}" if found else "")
            + f": {reason}. Supported are BERT, ALBERT, ELECTRA, talking-heads, MobileBERT and pre-LayerNorm "
            "encoders in the layouts of TF Hub."
        )


def _shortest(value: float) -> float:
    """Return the shortest decimal that is the same float32: 1e-12 rather than 9.999999960041972e-13."""
    return float(str(np.float32(value)))
