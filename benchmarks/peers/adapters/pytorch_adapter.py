"""transformers' BertModel and PyTorch, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

from peers.adapters.base import BaseAdapter, Rows, Run, layer_order, made_up_ids, of_real_tokens, pad


def fast_tokenizer(folder: str, max_length: int) -> Tokenizer:
    """Return MiniLM's tokenizer, trimming but not padding: batches are padded to their own longest."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


class Adapter(BaseAdapter):
    """PyTorch, eagerly, without gradients unless it trains."""

    packages = ("torch", "transformers", "tokenizers")

    def __init__(self, work: Path, threads: int) -> None:
        super().__init__(work, threads)
        torch.set_num_threads(threads)

    def model(self, attention: str = "sdpa") -> BertModel:
        """Return MiniLM, not training."""
        return BertModel.from_pretrained(self.minilm, attn_implementation=attention, dtype=torch.float32).eval()

    def matmul(self, size: int) -> Run:
        """Multiply plain float32 matrices: what the machine gives at this moment."""
        a, b = torch.rand(size, size), torch.rand(size, size)
        return lambda: (a @ b)[:1, :1]

    def embed(self, pooling: str, attention: str = "sdpa") -> Run:
        """Strings to embeddings; all texts are tokenised in one call, which uses all cores."""
        model, tokenizer = self.model(attention), fast_tokenizer(self.minilm, self.max_length)

        @torch.inference_mode()
        def run():
            rows = Rows(len(self.texts))
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(self.texts)]
            for places, padded, mask in self.token_batches(ids):
                mask = torch.from_numpy(mask)
                hidden = model(torch.from_numpy(padded), attention_mask=mask).last_hidden_state
                rows.put(places, pooled(hidden, mask, pooling).numpy())
            return rows.vectors

        return run

    def states(self, attention: str = "eager", everything: bool = True) -> Run:
        """Token ids to all hidden states and attention scores, or (for comparison) to the last state alone."""
        model = self.model(attention)
        flags = {"output_hidden_states": True, "output_attentions": True} if everything else {}
        batches = [torch.from_numpy(ids.astype(np.int64)) for ids in self.id_batches()]

        @torch.inference_mode()
        def run():
            outputs = [model(ids, attention_mask=(ids != 0).long(), **flags) for ids in batches]
            first = outputs[0]
            if not everything:
                return {"last": first.last_hidden_state}
            return lambda: of_real_tokens(
                torch.stack(first.hidden_states).numpy(), torch.stack(first.attentions).numpy(), batches[0].numpy()
            )

        return run

    def tokenize(self, batch_size: int) -> Run:
        """Strings to token ids, padded to 128."""
        tokenizer = fast_tokenizer(self.minilm, self.max_length)
        tokenizer.enable_padding(length=self.max_length)

        def run():
            for start in range(0, len(self.texts), batch_size):
                encodings = tokenizer.encode_batch_fast(self.texts[start : start + batch_size])
                ids = np.array([encoding.ids for encoding in encodings])
            return {"last": ids}

        return run

    def train(self, fused: bool = True) -> Run:
        """Fine-tune everything on token ids."""
        ids, labels = (torch.from_numpy(array) for array in self.training_data())

        def batches():
            for batch, wanted in zip(ids.split(self.batch_size), labels.split(self.batch_size), strict=True):
                yield batch, torch.ones_like(batch), wanted

        return self._fit(batches, fused)

    def train_messages(self, length: int, fused: bool = True) -> Run:
        """Fine-tune everything on messages, each batch padded to its longest, as `DataCollatorWithPadding` does."""
        texts, labels = self.training_messages()
        tokenizer = fast_tokenizer(self.minilm, length)

        def batches():
            for start in range(0, len(texts), self.batch_size):
                rows = slice(start, start + self.batch_size)
                ids, mask = pad([encoding.ids for encoding in tokenizer.encode_batch_fast(texts[rows])])
                yield torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(labels[rows])

        return self._fit(batches, fused)

    def _fit(self, batches, fused: bool) -> Run:
        """Run forward, backward and AdamW over every batch; the mean and a dense layer on top."""
        bert = self.model().train()
        for parameter in bert.pooler.parameters():  # nothing reads it: it would have no gradient
            parameter.requires_grad_(False)
        head = torch.nn.Linear(bert.config.hidden_size, 1)
        weights = [parameter for parameter in bert.parameters() if parameter.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.AdamW([*weights, *head.parameters()], lr=1e-5, weight_decay=0.01, fused=fused)
        loss_function = torch.nn.BCEWithLogitsLoss()

        def run():
            losses = []
            for ids, mask, wanted in batches():
                hidden = bert(ids, attention_mask=mask).last_hidden_state
                loss = loss_function(head(pooled(hidden, mask, "mean")), wanted)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())

            def result():
                moved = [bool((old != weight).any()) for old, weight in zip(before, weights, strict=True)]
                return {"loss": np.array(losses), "moved": np.array(moved)}

            return result

        return run

    def encode(self, batch: int, length: int, layers: int, attention: str = "sdpa") -> Run:
        """Token ids to mean embeddings, for the sweeps."""
        model = self.model(attention)
        blocks = model.encoder.layer
        model.encoder.layer = torch.nn.ModuleList(copy.deepcopy(blocks[i]) for i in layer_order(layers, len(blocks)))
        ids = torch.from_numpy(made_up_ids(batch, length))
        mask = torch.ones_like(ids)

        @torch.inference_mode()
        def run():
            return pooled(model(ids, attention_mask=mask).last_hidden_state, mask, "mean").numpy()

        return run

    def export_onnx(self) -> Run:
        """Write the encoder as ONNX, plain and with ONNX Runtime's fused operations, for its adapter."""

        class LastState(torch.nn.Module):
            def __init__(self, model) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids, attention_mask, token_type_ids):
                return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

        def run():
            from onnxruntime.transformers.optimizer import optimize_model

            ids = torch.from_numpy(made_up_ids(3, 11))
            names = ["input_ids", "attention_mask", "token_type_ids"]
            plain, fused = self.work / "bert.onnx", self.work / "bert_fused.onnx"
            # The old exporter: ONNX Runtime's fusions know its graphs of BERT.
            torch.onnx.export(
                LastState(self.model("eager")),
                (ids, torch.ones_like(ids), torch.zeros_like(ids)),
                str(plain),
                input_names=names,
                output_names=["last_hidden_state"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]},
                opset_version=17,
                dynamo=False,
            )
            config = self.model().config
            optimized = optimize_model(
                str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1
            )
            optimized.save_model_to_file(str(fused))
            fusions = {name: count for name, count in optimized.get_fused_operator_statistics().items() if count}
            (self.work / "onnx_fusions.txt").write_text(", ".join(f"{n} {name}" for name, n in fusions.items()))

        return run

    def load(self, folder: str | None = None) -> Run:
        """Read the model."""
        return self.model


def pooled(hidden, mask, pooling: str):
    """Pool by the mean over the real tokens, or by the first token."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
