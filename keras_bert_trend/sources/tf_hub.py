"""Read a BERT encoder out of a TF Hub SavedModel: roles from the names, everything else from the graph."""

from __future__ import annotations

import re

import numpy as np

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.dataflow import Dataflow, Key
from keras_bert_trend.sources.saved_model import SavedModelFiles
from keras_bert_trend.sources.source import LazyWeights, Source, UnsupportedArchitectureError, read_vocabulary_file

# Variable names of the current layout (Model Garden 2.4 and later) → google-research/bert's names. Any path component
# may carry a suffix `_1` when other models were built before in the same process; some exports put a prefix before.
_OUTSIDE_BLOCKS = {
    "word_embeddings/embeddings": "embeddings/word_embeddings",
    "position_embedding/embeddings": "embeddings/position_embeddings",
    "type_embeddings/embeddings": "embeddings/token_type_embeddings",
    "embeddings/layer_norm/gamma": "embeddings/LayerNorm/gamma",
    "embeddings/layer_norm/beta": "embeddings/LayerNorm/beta",
    "pooler_transform/kernel": "pooler/dense/kernel",
    "pooler_transform/bias": "pooler/dense/bias",
    "cls_transform/kernel": "pooler/dense/kernel",
    "cls_transform/bias": "pooler/dense/bias",
    "pooler/kernel": "pooler/dense/kernel",
    "pooler/bias": "pooler/dense/bias",
}
_INSIDE_BLOCKS = {
    "self_attention/query": "attention/self/query",
    "self_attention/key": "attention/self/key",
    "self_attention/value": "attention/self/value",
    "self_attention/attention_output": "attention/output/dense",
    "self_attention_layer_norm": "attention/output/LayerNorm",
    "intermediate": "intermediate/dense",
    "output": "output/dense",
    "output_layer_norm": "output/LayerNorm",
}
_BLOCK = re.compile(r"(?:^|/)transformer(?:_\d+)?/layer_(\d+)(?:_\d+)?/(.+)/(kernel|bias|gamma|beta)$")
_MATMULS = ("Einsum", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")


def read_tf_hub_model(path: str) -> Source:
    """Read a TF Hub text encoder in the current layout (dictionary of three inputs, `encoder_outputs` returned).

    The weights' roles come from the variables' names. The architecture's constants (activation, LayerNorm epsilon,
    mask constant, head count, dropout) come from the graph, which also has to confirm the roles: every matmul and
    every LayerNorm must be fed by the layer that a post-LayerNorm BERT feeds it with. Nothing is executed.

    Args:
        path: the SavedModel folder.

    Raises:
        ValueError: the folder is no readable TF2 SavedModel.
        UnsupportedArchitectureError: it is one, but not a BERT encoder in a layout this reader knows.
    """
    files = SavedModelFiles(path)
    reader = _BertReader(files)
    config = reader.config()
    reader.check_wiring()
    vocabulary_file = files.asset("vocab_file")
    return Source(
        config=config,
        weights=LazyWeights(
            {role: _weight_reader(files, object_id, role) for role, object_id in reader.variables.items()}
        ),
        vocabulary=None if vocabulary_file is None else read_vocabulary_file(vocabulary_file),
        lower_case=_lower_case(files),
        origin=path,
    )


def _weight_reader(files, object_id, role):
    def read() -> np.ndarray:
        array = files.read_variable(object_id)
        if array.dtype != np.float32:
            array = array.astype(np.float32)
        # Heads are an axis of their own in the SavedModel: (in, heads, size) and (heads, size, out).
        if "attention/self/" in role:
            return array.reshape(array.shape[0], -1) if role.endswith("kernel") else array.reshape(-1)
        if role.endswith("attention/output/dense/kernel"):
            return array.reshape(-1, array.shape[-1])
        return array

    return read


def _lower_case(files: SavedModelFiles) -> bool | None:
    node = files.child("do_lower_case")
    return None if node not in files.variable_names else bool(files.read_variable(node))


def _role(name: str) -> str | None:
    """Return the google-research/bert name for a variable's name in the SavedModel, or `None`."""
    block = _BLOCK.search(name)
    if block:
        index, layer, leaf = block.groups()
        layer = "/".join(re.sub(r"_\d+$", "", part) for part in layer.split("/"))
        return f"encoder/layer_{index}/{_INSIDE_BLOCKS[layer]}/{leaf}" if layer in _INSIDE_BLOCKS else None
    parts = [re.sub(r"_\d+$", "", part) for part in name.split("/")]
    for length in (3, 2):
        role = _OUTSIDE_BLOCKS.get("/".join(parts[-length:]))
        if role:
            return role
    return None


class _BertReader:
    """What one SavedModel's graph says about the BERT inside it."""

    def __init__(self, files: SavedModelFiles) -> None:
        self.files = files
        self.graph = Dataflow(files, files.function_for_inference())
        self.matmuls = set(self.graph.select(*_MATMULS))
        self.variables: dict[str, int] = {}
        unknown = []
        for object_id in sorted(self.graph.variables):
            name = files.variable_names[object_id]
            role = _role(name)
            if role is None or role in self.variables:
                unknown.append(name)
            else:
                self.variables[role] = object_id
        if unknown:
            raise self._unsupported(f"its outputs depend on variables with no role in a BERT encoder: {unknown[:6]}")
        blocks = {int(role.split("/")[1].removeprefix("layer_")) for role in self.variables if "/layer_" in role}
        self.num_layers = len(blocks)
        if not self.variables:
            raise self._unsupported("its outputs depend on no variables; is it a preprocessing model?")
        if blocks != set(range(self.num_layers)):
            raise self._unsupported(f"its transformer blocks are numbered {sorted(blocks)}")
        expected = set(_expected_roles(self.num_layers))
        self.has_pooler = "pooler/dense/kernel" in self.variables
        if self.has_pooler:
            expected |= {"pooler/dense/kernel", "pooler/dense/bias"}
        if expected != set(self.variables):
            raise self._unsupported(
                f"weights are missing {sorted(expected - set(self.variables))[:6]} "
                f"or left over {sorted(set(self.variables) - expected)[:6]}"
            )

    def config(self) -> BertConfig:
        """Return the architecture, every constant read from the graph."""
        shape = self._shape
        hidden_size, num_heads, head_size = self._query_shape()
        hidden_dropout, attention_dropout = self._dropout_rates()
        softmaxes = self.graph.select("Softmax")
        if len(softmaxes) != self.num_layers:
            raise self._unsupported(f"it has {self.num_layers} blocks but {len(softmaxes)} attention softmaxes")
        self._check_scale(softmaxes, head_size)
        return BertConfig(
            vocab_size=shape("embeddings/word_embeddings")[0],
            hidden_size=hidden_size,
            num_layers=self.num_layers,
            num_heads=num_heads,
            intermediate_size=shape("encoder/layer_0/intermediate/dense/kernel")[-1],
            max_position_embeddings=shape("embeddings/position_embeddings")[0],
            type_vocab_size=shape("embeddings/token_type_embeddings")[0],
            hidden_act=self._hidden_act(),
            layer_norm_epsilon=self._epsilon(),
            attention_mask_constant=self._mask_constant(softmaxes),
            hidden_dropout=hidden_dropout,
            attention_dropout=attention_dropout,
            pooler="tanh" if self.has_pooler else "identity",
        )

    def check_wiring(self) -> None:
        """Confirm from the graph that each weight sits where a post-LayerNorm BERT has it.

        Names alone do not tell: pre-LayerNorm models have exactly the names of post-LayerNorm ones. So for every
        kernel and LayerNorm, the nearest variable upstream of its input must be the one that feeds it in BERT.

        Raises:
            UnsupportedArchitectureError: some layer is fed by another one.
        """
        previous = "embeddings/LayerNorm/beta"
        for i in range(self.num_layers):
            layer = f"encoder/layer_{i}"
            for role in ("query", "key", "value"):
                self._check_feed(f"{layer}/attention/self/{role}/kernel", previous)
            self._check_feed(f"{layer}/attention/output/dense/kernel", f"{layer}/attention/self/value/bias")
            self._check_feed(f"{layer}/attention/output/LayerNorm/beta", f"{layer}/attention/output/dense/bias")
            self._check_feed(f"{layer}/intermediate/dense/kernel", f"{layer}/attention/output/LayerNorm/beta")
            self._check_feed(f"{layer}/output/dense/kernel", f"{layer}/intermediate/dense/bias")
            self._check_feed(f"{layer}/output/LayerNorm/beta", f"{layer}/output/dense/bias")
            previous = f"{layer}/output/LayerNorm/beta"
        if self.has_pooler:
            self._check_feed("pooler/dense/kernel", previous)
            if not self.graph.select("Tanh"):
                raise self._unsupported("its pooler has no tanh")

    def _check_feed(self, role: str, expected: str) -> None:
        own = {self._key(role)}
        if role.endswith("kernel"):
            starts = [source for matmul in self._matmuls_using(role) for source in self.graph.nodes[matmul].inputs]
        else:
            own.add(self._key(role.replace("/beta", "/gamma")))
            starts = self.graph.consumers[self._key(role)]
        fed_by = self.graph.nearest(starts, lambda key, _: key[0] == "variable" and key not in own)
        if self._key(expected) not in fed_by:
            found = sorted(self.files.variable_names.get(key[1], "?") for key in fed_by)
            raise self._unsupported(
                f"the layer of {self._name(role)!r} is fed by {found}, where a post-LayerNorm BERT has "
                f"{self._name(expected)!r}"
            )

    def _key(self, role: str) -> Key:
        return ("variable", self.variables[role])

    def _name(self, role: str) -> str:
        return self.files.variable_names[self.variables[role]]

    def _shape(self, role: str) -> tuple[int, ...]:
        return tuple(d.size for d in self.files.objects[self.variables[role]].variable.shape.dim)

    def _matmuls_using(self, role: str) -> list[Key]:
        """Return the nearest downstream matmuls that use a variable."""
        found = self.graph.nearest([self._key(role)], lambda key, _: key in self.matmuls, downstream=True)
        if not found:
            raise self._unsupported(f"{self._name(role)!r} is used by no matmul")
        return found

    def _query_shape(self) -> tuple[int, int, int]:
        shape = self._shape("encoder/layer_0/attention/self/query/kernel")
        if len(shape) != 3 or shape[0] != shape[1] * shape[2]:
            raise self._unsupported(f"its query kernel has shape {shape}, expected (hidden, heads, hidden / heads)")
        return shape

    def _hidden_act(self) -> str:
        kinds = set()
        for i in range(self.num_layers):
            layer = f"encoder/layer_{i}"
            between: set[Key] = set()
            for matmul in self._matmuls_using(f"{layer}/output/dense/kernel"):
                between |= self.graph.upstream(matmul, until=self.matmuls - {matmul})
            ops = {self.graph.nodes[key].op for key in between if key in self.graph.nodes}
            if ops & {"Erf", "Erfc"}:
                kinds.add("gelu")
            elif "Tanh" in ops:
                kinds.add("gelu_tanh")
            elif "Relu" in ops:
                kinds.add("relu")
            else:
                kinds.add(f"unknown ({sorted(ops)})")
        if len(kinds) != 1 or any(kind.startswith("unknown") for kind in kinds):
            raise self._unsupported(f"its activation is {sorted(kinds)}")
        return kinds.pop()

    def _epsilon(self) -> float:
        values = {
            self.graph.nodes[key].constant
            for rsqrt in self.graph.select("Rsqrt")
            for source in self.graph.nodes[rsqrt].inputs
            for key in self.graph.nodes[source].inputs
            if key in self.graph.nodes and self.graph.nodes[key].constant is not None
        }
        if len(values) != 1:
            raise self._unsupported(f"its LayerNorm epsilon is not one constant but {sorted(values)}")
        return _shortest(values.pop())

    def _mask_constant(self, softmaxes: list[Key]) -> float:
        def is_mask(key, node):
            return node is not None and node.constant is not None and node.constant <= -100

        values = set()
        for softmax in softmaxes:
            found = self.graph.nearest([softmax], is_mask, stop=_MATMULS)
            values |= {self.graph.nodes[key].constant for key in found} or {None}
        if len(values) != 1 or None in values:
            raise self._unsupported(f"its attention mask constant is not one constant but {values}")
        return _shortest(values.pop())

    def _check_scale(self, softmaxes: list[Key], head_size: int) -> None:
        """Confirm that queries (or logits) are scaled by 1/√(head size)."""
        expected = np.float32(head_size**-0.5)
        for softmax in softmaxes:
            products = self.graph.nearest([softmax], lambda key, _: key in self.matmuls)
            near = self.graph.upstream(softmax, until=self.matmuls.difference(products))
            constants = {self.graph.nodes[k].constant for k in near if k in self.graph.nodes} - {None}
            if not any(np.isclose(c, expected, rtol=1e-6) for c in constants):
                raise self._unsupported(f"its attention is not scaled by 1/sqrt({head_size})")

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
                    [compare], lambda _, node: node is not None and "RandomUniform" in node.op, stop=_MATMULS
                )
                if len(rates) != 1 or rates == {0.0} or not uniform:
                    continue  # rate 0: the dropout inside the feed-forward that BERT does not have
                # The random tensor takes its shape from what it drops: a softmax, or a hidden state.
                dropped = graph.nearest(uniform, lambda _, node: node is not None and node.op in ("Softmax", *_MATMULS))
                kind = attention if any(graph.nodes[key].op == "Softmax" for key in dropped) else hidden
                kind |= rates
            if hidden or attention:
                if len(hidden) > 1 or len(attention) > 1:
                    raise self._unsupported(f"its dropout rates differ: {sorted(hidden)}, {sorted(attention)}")
                return _shortest(next(iter(hidden), 0.0)), _shortest(next(iter(attention), 0.0))
        return 0.0, 0.0

    def _unsupported(self, reason: str) -> UnsupportedArchitectureError:
        return UnsupportedArchitectureError(
            f"{self.files.path!r} is not a BERT encoder in the layout this version reads (TF Hub bert_en_*/3 and "
            f"later, small_bert, Experts): {reason}."
        )


def _shortest(value: float) -> float:
    """Return the shortest decimal that is the same float32: 1e-12 rather than 9.999999960041972e-13."""
    return float(str(np.float32(value)))


def _expected_roles(num_layers: int) -> list[str]:
    roles = [
        "embeddings/word_embeddings",
        "embeddings/position_embeddings",
        "embeddings/token_type_embeddings",
        "embeddings/LayerNorm/gamma",
        "embeddings/LayerNorm/beta",
    ]
    for i in range(num_layers):
        for layer in _INSIDE_BLOCKS.values():
            leaves = ("gamma", "beta") if layer.endswith("LayerNorm") else ("kernel", "bias")
            roles += [f"encoder/layer_{i}/{layer}/{leaf}" for leaf in leaves]
    return roles
