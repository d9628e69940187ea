"""`BertEncoder`: TF Hub's text encoder interface as a Keras 3 layer, with everything inside in the open."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bert_trend._utils import check_count
from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.embeddings import BertEmbeddings
from keras_bert_trend.encoder.lora import check_targets
from keras_bert_trend.encoder.ops import as_long_as, attach_mask, dense, is_concrete, is_placeholder, wide_dtype
from keras_bert_trend.encoder.rows import RealTokens
from keras_bert_trend.encoder.transformer_block import TransformerBlock
from keras_bert_trend.encoder.variables import add_weights, fill, values_in
from keras_bert_trend.encoder.weight_table import Weight

INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class BertEncoder(keras.layers.Layer):
    """A BERT encoder whose every weight is a Keras variable and whose every hidden state is an output.

    Example:
        >>> encoder = BertEncoder(BertConfig(vocab_size=100, hidden_size=8, num_layers=2, num_heads=2))
        >>> ids = np.array([[1, 2, 3]])
        >>> outputs = encoder({"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0})
        >>> outputs["sequence_output"].shape
        TensorShape([1, 3, 8])

    Args:
        config: the architecture, a `BertConfig` or its `to_dict()`.
        trainable: whether the encoder trains. A frozen encoder also runs without dropout, as `hub.KerasLayer` does:
            it is then the same deterministic function in `fit` and in `predict`.
        freeze_embeddings: keep the embeddings' weights as they are while the blocks train.
        trainable_layers: train only the last `n` blocks and the pooler; everything below, embeddings included, stays
            frozen. `None` trains all blocks.
        train_pooler: whether the pooler trains too; without it a model that never uses `pooled_output` has no weights
            that get no gradient. Setting `encoder.trainable` later respects these three arguments.
        rematerialize: in training, compute the blocks again in the backward pass instead of keeping what is inside
            them: memory for one block instead of all, for about a third more time ("gradient checkpointing").
        weights: the initial weights, as for `set_named_weights`; `None` draws them. Not part of `get_config()`.
        **kwargs: `name`, `dtype` (a mixed precision policy too) and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: dict with `input_word_ids`, `input_mask` (1 = real token) and `input_type_ids`, int `(batch, seq)`.
        return_attention_scores: add `attention_scores`; costs `O(layers · heads · seq²)` memory.
        return_attention_received: add `attention_received`, the column sums of the scores over the real queries; of all
            blocks, or of those whose numbers (from 0, ascending) are given.
        last_block_tokens: for those who read only few tokens of the last layer: a function that gets the dict of what
            is there before the last block (`embedding_output`, `encoder_outputs`, `attention_received`) and returns
            int32 `(batch, n)`, positions of tokens, `n` known. The last block computes these alone; all other states of
            `sequence_output` are zero. What is computed is the same as without.
        skip_padding: compute the real tokens only, for those who ignore padding: its states in `encoder_outputs` are
            zero (not in `embedding_output`). What is computed is the same as without, where the first token is real;
            dropout draws other numbers. Attention alone still computes padding. It pays where much is padding; it needs
            the TensorFlow backend, and cannot be compiled by XLA.
        compute_dtype: the dtype of the products and the states, instead of the policy's. Sums, softmax and norms stay
            in float32, and so does all of the first block if `return_attention_received` includes it.
        training: whether dropout acts.

    Returns:
        dict of float tensors, named as in TF Hub's text encoder interface:

        * `pooled_output`, `default`: `(batch, hidden)`, tanh dense on the first token
        * `sequence_output`: `(batch, seq, hidden)`, the last block's output
        * `encoder_outputs`: list of `num_layers` × `(batch, seq, hidden)`, without the embedding output
        * `embedding_output`: `(batch, seq, hidden)`, input of the first block
        * `attention_scores`: list of `num_layers` × `(batch, heads, seq, seq)`, float32, `[..., query, key]`
        * `attention_received`: `(batch, num_layers, heads, seq)`, float32; fewer layers where fewer are asked for

    Raises:
        ValueError: an argument does not fit the architecture; an input is missing, has the wrong dtype or rank, is
            longer than `max_position_embeddings`, or (in eager mode) holds ids outside the tables.
    """

    def __init__(
        self,
        config: BertConfig | Mapping[str, Any],
        *,
        trainable: bool = True,
        freeze_embeddings: bool = False,
        trainable_layers: int | None = None,
        train_pooler: bool = True,
        rematerialize: bool = False,
        weights: Mapping[str, Any] | None = None,
        **kwargs,
    ) -> None:
        config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        if config.share_layers and trainable_layers not in (None, 0, config.num_layers):
            raise ValueError(
                f"`trainable_layers` must be 0 or {config.num_layers} where all layers share their weights, got "
                f"{trainable_layers}."
            )
        if trainable_layers is not None and not 0 <= trainable_layers <= config.num_layers:
            raise ValueError(
                f"`trainable_layers` must be between 0 and num_layers={config.num_layers}, got {trainable_layers}."
            )
        super().__init__(**kwargs)
        self.config = config
        self.freeze_embeddings = freeze_embeddings
        self.trainable_layers = trainable_layers
        self._train_pooler = train_pooler
        self.rematerialize = rematerialize
        self._lora: dict[str, Any] | None = None

        self._values_follow = weights is not None
        options = {"values_follow": self._values_follow, "dtype": self.dtype_policy}
        self.embeddings = BertEmbeddings(config, name="embeddings", **options)
        last = config.num_layers - 1
        self.blocks = [
            TransformerBlock(config, is_last=i == last, rematerialize=rematerialize, name=f"layer_{i}", **options)
            for i in range(config.num_blocks)
        ]
        # The configuration fixes every shape: weights exist from the start, before any input was seen.
        self.build()
        if weights is not None:
            self.set_named_weights(weights)
        self.trainable = trainable
        self._freeze_parts()  # the setter is skipped where it would change nothing

    def build(self, input_shape=None) -> None:
        """Create all weights; needs no input shape."""
        if self.built:
            return
        self.embeddings.build()
        for block in self.blocks:
            block.build()
        normal = functools.partial(keras.initializers.TruncatedNormal, stddev=self.config.initializer_range)
        add_weights(self, self.config.pooler_weights(), normal, self._values_follow)
        self.built = True

    @classmethod
    def from_handle(cls, handle: str | os.PathLike, *, sha256: str | None = None, **kwargs) -> BertEncoder:
        """Make an encoder with the architecture and the weights that `handle` names.

        Args:
            handle: str or path. `"minilm"`, the folder or the `.tar.gz` of a TF Hub SavedModel, of a Hugging Face BERT
                or of a google-research/bert checkpoint, or the `https://` URL of a TF Hub model.
            sha256: str or `None`. The SHA-256 that an archive, on this machine or behind a URL, must have. Defaults to
                `None`, any.
            **kwargs: arguments of `BertEncoder` other than `config` and `weights`.

        Raises:
            ValueError: if the handle names nothing that can be read, or an architecture that is not supported.
            ImportError: if the weights of `"minilm"` are not installed.
        """
        from keras_bert_trend.sources import load_source

        return cls.from_source(load_source(handle, sha256), **kwargs)

    @classmethod
    def from_source(cls, source, **kwargs) -> BertEncoder:
        """Make an encoder from a `keras_bert_trend.sources.Source`, with its architecture and weights."""
        try:
            # Before any memory is taken for an architecture that the weights may not have.
            _check_shapes(source.weights.shapes, source.config.weight_shapes())
            return cls(source.config, weights=source.weights, **kwargs)
        except ValueError as error:
            raise ValueError(f"{source.origin!r}: {error}") from error

    @property
    def trainable(self) -> bool:
        """Whether the encoder trains, within `freeze_embeddings` and `trainable_layers`."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)  # sets every sub-layer: what must stay frozen is set again
        if value and self.built:
            self._freeze_parts()

    @property
    def train_pooler(self) -> bool:
        """Whether the pooler trains when the encoder does."""
        return self._train_pooler

    @train_pooler.setter
    def train_pooler(self, value: bool) -> None:
        self._train_pooler = value
        self._freeze_parts()

    @property
    def trains_pooler(self) -> bool:
        """Whether there is a pooler with weights, and they train now."""
        return self.config.pooler == "tanh" and self.pooler_kernel.trainable

    def enable_lora(
        self, rank: int, lora_alpha: float | None = None, target: Sequence[str] = ("query", "value")
    ) -> None:
        """Train low-rank updates of some kernels instead of BERT itself, as `keras.layers.Dense.enable_lora`.

        `x W` becomes `x W + (α / r) · (x A) B` in every block that trains, with `A` Gaussian and `B` zero at first;
        everything else of the encoder is frozen. Saving and exporting merge the updates into the kernels; a `.keras`
        file that is loaded goes on with new updates, from zero.

        Source: Hu et al. 2021 (arXiv:2106.09685), §4.

        Args:
            rank: int. The rank `r` of the updates.
            lora_alpha: float or `None`. `α`; defaults to `rank`.
            target: list of str. What to adapt, out of `"query"`, `"key"`, `"value"`, `"attention_output"`,
                `"intermediate"` and `"output"`. Defaults to the paper's `("query", "value")`.

        Raises:
            ValueError: if an argument is none of these, or LoRA is enabled already.
        """
        check_count("rank", rank)
        if lora_alpha is not None and not (isinstance(lora_alpha, int | float) and lora_alpha > 0):
            raise ValueError(f"`lora_alpha` must be a positive number or None, got {lora_alpha!r}.")
        target = check_targets(target)
        if self._lora is not None:
            raise ValueError(f"LoRA is enabled already, with {self._lora}.")
        self._lora = {"rank": int(rank), "lora_alpha": float(lora_alpha or rank), "target": list(target)}
        for block in self.blocks[self._frozen_blocks :]:
            block.enable_lora(**self._lora)
        self.trainable = True
        self._freeze_parts()

    @property
    def _frozen_blocks(self) -> int:
        """How many blocks from below `trainable_layers` keeps frozen."""
        if self.trainable_layers is None or self.config.share_layers:
            return 0
        return self.config.num_layers - self.trainable_layers

    def _freeze_parts(self) -> None:
        if self.config.pooler == "tanh":
            self.pooler_kernel.trainable = self.pooler_bias.trainable = self.trainable and self._train_pooler
        if self.trainable_layers is not None:
            for block in self.blocks[: self.config.num_layers - self.trainable_layers]:
                block.trainable = False
        if self.freeze_embeddings or self.trainable_layers is not None or self._lora is not None:
            self.embeddings.trainable = False
        if self._lora is not None:
            if self.config.pooler == "tanh":
                self.pooler_kernel.trainable = self.pooler_bias.trainable = False
            for block in self.blocks if self.trainable else ():
                block.freeze_all_but_lora()

    def call(
        self,
        inputs,
        training=None,
        return_attention_scores=False,
        return_attention_received=False,
        last_block_tokens=None,
        skip_padding=False,
        compute_dtype=None,
    ):
        ids, mask, types = self._check_inputs(inputs)
        summed = self._blocks_to_sum(return_attention_received)
        last = self.config.num_layers - 1
        if last_block_tokens is not None and (return_attention_scores or last in summed):
            raise ValueError("`last_block_tokens` leaves out queries: the last block's attention cannot be returned.")
        if skip_padding and return_attention_scores:
            raise ValueError("`skip_padding` leaves out queries: `attention_scores` cannot be returned.")
        tokens = RealTokens(mask) if skip_padding else None
        if not self.trainable:
            training = False
        dtype = compute_dtype or self.compute_dtype
        x = self.embeddings(ids, types, training=training)
        outputs: dict[str, Any] = {"embedding_output": ops.cast(x, dtype), "encoder_outputs": []}
        # Trend pooling chooses words by the first block's attention: rounded to 8 bits, it would choose others.
        x = x if 0 in summed else outputs["embedding_output"]
        scores, received = [], []
        queries = ops.cast(mask, wide_dtype(x))[:, None, None, :]
        for number, block in enumerate(self._layers_in_order()):
            if number == last and last_block_tokens is not None:
                x = self._run_at(block, x, mask, last_block_tokens(outputs), training, tokens)
            else:
                x, probabilities = block(x, mask, training=training, tokens=tokens)
                if return_attention_scores:
                    scores.append(probabilities)
                if number in summed:
                    received.append(ops.matmul(queries, probabilities)[:, :, 0])
                    if len(received) == len(summed):
                        outputs["attention_received"] = ops.stack(received, axis=1)
            x = ops.cast(x, dtype)
            outputs["encoder_outputs"].append(x)
        pooled = self._pool(x)
        outputs.update(pooled_output=pooled, default=pooled, sequence_output=x)
        for states in (outputs["embedding_output"], *outputs["encoder_outputs"]):
            attach_mask(states, mask)
        if return_attention_scores:
            outputs["attention_scores"] = scores
        return outputs

    def _blocks_to_sum(self, return_attention_received) -> range | list[int]:
        """Return the numbers of the blocks whose attention is summed."""
        if isinstance(return_attention_received, bool):
            return range(self.config.num_layers if return_attention_received else 0)
        blocks = sorted(set(return_attention_received))
        if list(return_attention_received) != blocks or not set(blocks) <= set(range(self.config.num_layers)):
            raise ValueError(
                "`return_attention_received` must be a bool, or ascending numbers of blocks in "
                f"[0, {self.config.num_layers}), got {return_attention_received!r}."
            )
        return blocks

    def _run_at(self, block, x, mask, positions, training, tokens):
        """Run the block for the tokens at `positions` `(batch, n)` and return `(batch, seq, hidden)`, else zero."""
        states, _ = block(x, mask, training=training, positions=positions, tokens=tokens)
        (batch, length, width), count = ops.shape(x), positions.shape[1]
        # `scatter` adds up: of a position that is given twice, the first counts.
        again = ops.equal(positions[:, :, None], positions[:, None, :])  # (batch, n, n)
        again = ops.any(ops.logical_and(again, np.tri(count, k=-1, dtype=bool)), axis=-1)
        states = ops.where(again[:, :, None], ops.zeros_like(states), states)
        rows = ops.broadcast_to(ops.arange(batch, dtype="int32")[:, None], ops.shape(positions))
        return ops.scatter(ops.stack([rows, positions], axis=-1), states, (batch, length, width))

    def _layers_in_order(self) -> list[TransformerBlock]:
        """Return the block of every layer: the same one each time where the layers share their weights."""
        return self.blocks * self.config.num_layers if self.config.share_layers else list(self.blocks)

    def _pool(self, x):
        first = x[:, 0]
        if self.config.pooler == "identity":
            return first
        return ops.tanh(dense(first, self.pooler_kernel, self.pooler_bias))

    def _check_inputs(self, inputs):
        """Return the three inputs as int32 tensors, or say which of them is wrong and how."""
        check_input_names(inputs)
        tensors = [inputs[name] for name in INPUT_NAMES]
        tensors = [x if hasattr(x, "row_splits") else ops.convert_to_tensor(x) for x in tensors]
        self._check_static(tensors)
        tensors = [ops.cast(tensor, "int32") for tensor in tensors]
        self._check_ranges(tensors)
        return [as_long_as(tensor, tensors[0]) for tensor in tensors]

    def _check_static(self, tensors):
        """Check what is known before any value is: dtype, rank, length."""
        for name, tensor in zip(INPUT_NAMES, tensors, strict=True):
            if hasattr(tensor, "row_splits"):
                raise ValueError(f"`{name}` must be a dense tensor, got a RaggedTensor: call its to_tensor() first.")
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            if "int" not in dtype and dtype != "bool" and not is_placeholder(tensor):
                raise ValueError(f"`{name}` must be an integer tensor, got dtype {dtype}.")
            if len(tensor.shape) != 2:
                raise ValueError(f"`{name}` must have rank 2, (batch, seq), got shape {tuple(tensor.shape)}.")
        shapes = {name: tuple(tensor.shape) for name, tensor in zip(INPUT_NAMES, tensors, strict=True)}
        for axis in (0, 1):
            # Under JAX an export gives every input a symbol of its own for an open size.
            if len({shape[axis] for shape in shapes.values() if isinstance(shape[axis], int)}) > 1:
                raise ValueError(f"The three inputs must have the same shape (batch, seq), got {shapes}.")
        length, longest = tensors[0].shape[1], self.config.max_position_embeddings
        if isinstance(length, int) and length > longest:
            raise ValueError(
                f"`input_word_ids` has {length} positions, but this model has max_position_embeddings={longest}. "
                f"Truncate the text, for example with sequence_length={longest}."
            )
        if isinstance(length, int) and length == 0:
            raise ValueError("`input_word_ids` has no positions; even an empty text has [CLS] and [SEP].")

    def _check_ranges(self, tensors):
        """Check the values if there are any yet: their extremes are found where they are, and fetched at once."""
        if not all(map(is_concrete, tensors)) or 0 in tensors[0].shape:
            return
        extremes = ops.stack([reduce(tensor) for tensor in tensors for reduce in (ops.min, ops.max)])
        extremes = ops.convert_to_numpy(extremes).reshape(3, 2)
        # Where there are no types, `input_type_ids` are those of any BERT, and change nothing.
        limits = (self.config.vocab_size, 2, self.config.type_vocab_size or 2)
        for name, (lowest, highest), limit in zip(INPUT_NAMES, extremes.tolist(), limits, strict=True):
            if lowest < 0 or highest >= limit:
                wrong = lowest if lowest < 0 else highest
                raise ValueError(f"`{name}` must hold values in [0, {limit}), got {wrong}.")

    def compute_output_spec(
        self,
        inputs,
        training=None,
        return_attention_scores=False,
        return_attention_received=False,
        last_block_tokens=None,
        skip_padding=False,
        compute_dtype=None,
    ):
        """Return `call`'s result as symbolic tensors, without tracing the blocks."""
        check_input_names(inputs)
        self._check_static([inputs[name] for name in INPUT_NAMES])
        (batch, length), config = inputs["input_word_ids"].shape, self.config

        own = compute_dtype or self.compute_dtype
        wide = "float64" if own == "float64" else "float32"

        def spec(*shape, dtype=own):
            return keras.KerasTensor(shape, dtype=dtype)

        outputs: dict[str, Any] = {
            "embedding_output": spec(batch, length, config.hidden_size),
            "pooled_output": spec(batch, config.hidden_size),
            "default": spec(batch, config.hidden_size),
            "sequence_output": spec(batch, length, config.hidden_size),
            "encoder_outputs": [spec(batch, length, config.hidden_size) for _ in range(config.num_layers)],
        }
        if return_attention_scores:
            shape = (batch, config.num_heads, length, length)
            outputs["attention_scores"] = [spec(*shape, dtype=wide) for _ in range(config.num_layers)]
        if summed := len(self._blocks_to_sum(return_attention_received)):
            outputs["attention_received"] = spec(batch, summed, config.num_heads, length, dtype=wide)
        return outputs

    def compute_mask(self, inputs, previous_mask):
        """Return `None`: `call` attaches the mask to what has one vector a token, and the rest needs none."""
        return None

    def compute_output_shape(self, input_shape):
        """Return the shapes of the outputs for the dict of the three inputs' shapes."""
        inputs = {name: keras.KerasTensor(shape, dtype="int32") for name, shape in input_shape.items()}
        return keras.tree.map_structure(lambda spec: spec.shape, self.compute_output_spec(inputs))

    def named_weights(self) -> dict[str, np.ndarray]:
        """Return every weight as a NumPy array under its google-research/bert name (without the leading `bert/`).

        Query, key and value come apart again, as `(hidden, hidden)` kernels and `(hidden,)` biases.
        """
        weights: dict[str, np.ndarray] = {}
        for layer, weight in self._weight_table():
            variable = getattr(layer, weight.attribute)
            value = layer.merged_value(variable) if isinstance(layer, TransformerBlock) else variable.value
            weights |= values_in(value, weight)
        return weights

    def set_named_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Assign every weight from arrays under their google-research/bert names.

        Args:
            weights: name → array; kernels are `(in, out)`. Each is asked for once, so a mapping may read it from disk
                at that moment.

        Raises:
            ValueError: a name is missing or unknown, a shape does not fit, or an array holds NaN or infinity.
        """
        _check_names(weights, self.config.weight_shapes())
        for layer, weight in self._weight_table():
            fill(getattr(layer, weight.attribute), weight, weights)

    def export_text_encoder(self, path: str | os.PathLike, preprocessor=None, *, overwrite: bool = False) -> None:
        """Write a SavedModel with TF Hub's interface of text encoders: a fine-tuned encoder goes back to the ecosystem.

        `hub.load(path)` takes the dict of the three inputs, and `training`, and returns TF Hub's outputs and
        `embedding_output`; its `call_with_attention` adds `attention_scores` and `attention_received`. Its variables
        train there. `BertEncoder.from_handle` reads it back.

        Args:
            path: the folder to write. It is complete or not there.
            preprocessor: the `BertPreprocessor` whose vocabulary and casing go into the SavedModel, if any.
            overwrite: replace what stands at `path`.

        Raises:
            FileExistsError: `path` exists.
        """
        from keras_bert_trend.export.tf_hub import write_text_encoder

        write_text_encoder(os.fspath(path), self.config, self.named_weights(), preprocessor, overwrite)

    def export_hugging_face(self, path: str | os.PathLike, preprocessor=None, *, overwrite: bool = False) -> None:
        """Write a folder that `transformers.BertModel` and `SentenceTransformer` open, with equal numbers.

        It holds `config.json`, `model.safetensors` and, with a preprocessor, `vocab.txt`, `tokenizer.json` and its
        configuration. `BertEncoder.from_handle` reads it back.

        Args:
            path: str or path. The folder to write. It is complete or not there.
            preprocessor: `BertPreprocessor` or `None`. Whose vocabulary and casing to write.
            overwrite: bool. Whether to replace an existing `path`.

        Raises:
            FileExistsError: if `path` exists and `overwrite` is false.
            ValueError: if the encoder shares its layers or has narrow embeddings, which Hugging Face's BERT has not, or
                if the vocabulary is a SentencePiece model.
        """
        from keras_bert_trend.export.hugging_face import write_hugging_face

        write_hugging_face(os.fspath(path), self.config, self.named_weights(), preprocessor, overwrite)

    def _weight_table(self) -> Iterator[tuple[keras.layers.Layer, Weight]]:
        """Yield every row of the weight table, with the layer that it is of."""
        for layer, weights in zip([self.embeddings, *self.blocks, self], self.config.weight_parts(), strict=True):
            for weight in weights:
                yield layer, weight

    def _parts_trainable(self) -> dict[str, bool]:
        """Return whether the embeddings and each block train."""
        return {part.name: part.trainable for part in (self.embeddings, *self.blocks)}

    def get_config(self) -> dict[str, Any]:
        """Return the architecture and what is frozen; the handle is not kept, nor needed again."""
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "freeze_embeddings": self.freeze_embeddings,
            "trainable_layers": self.trainable_layers,
            "train_pooler": self.train_pooler,
            "rematerialize": self.rematerialize,
            "parts_trainable": self._parts_trainable(),
            "lora": self._lora,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BertEncoder:
        """Rebuild the encoder, and freeze the parts that were frozen one by one."""
        config = dict(config)
        parts, lora = config.pop("parts_trainable", {}), config.pop("lora", None)  # version 0.1 wrote neither
        encoder = cls(**config)
        if lora is not None:
            trainable = encoder.trainable
            encoder.enable_lora(**lora)
            encoder.trainable = trainable
        for part in (encoder.embeddings, *encoder.blocks):
            if parts.get(part.name, part.trainable) != part.trainable:
                part.trainable = parts[part.name]
        return encoder


def check_input_names(inputs) -> None:
    """Raise `ValueError` unless `inputs` is a dict of the three inputs."""
    if not isinstance(inputs, Mapping) or any(name not in inputs for name in INPUT_NAMES):
        got = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ValueError(f"`inputs` must be a dict with the keys {list(INPUT_NAMES)}, got {got}.")


def _check_names(names: Iterable[str], expected: Iterable[str]) -> None:
    missing, unknown = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if missing or unknown:
        raise ValueError(f"The weights do not fit the encoder: missing {missing[:6]}, unknown {unknown[:6]}.")


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    _check_names(shapes, expected)
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(f"Weight {name!r} has shape {tuple(shapes[name])}, the architecture needs {shape}.")
