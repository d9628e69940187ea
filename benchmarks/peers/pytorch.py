"""transformers' BertModel and PyTorch, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

from benchmarks.peers.base import (
    MAX_LENGTH,
    BaseAdapter,
    Run,
    in_order,
    mean_of_tokens,
    of_real_tokens,
    pad,
    random_ids,
)


class Adapter(BaseAdapter):
    """PyTorch, eagerly, without gradients unless it trains."""

    packages = ("torch", "transformers", "tokenizers")

    def __init__(self, work: Path, threads: int) -> None:
        super().__init__(work, threads)
        torch.set_num_threads(threads)

    def model(self, attention: str = "sdpa") -> BertModel:
        """Return MiniLM for inference."""
        return BertModel.from_pretrained(self.minilm, attn_implementation=attention, dtype=torch.float32).eval()

    def tokenizer(self, length: int = MAX_LENGTH) -> Tokenizer:
        """Return MiniLM's tokenizer, trimming but not padding."""
        tokenizer = Tokenizer.from_file(f"{self.minilm}/tokenizer.json")
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        return tokenizer

    def matmul(self, size: int) -> Run:
        """Multiply plain float32 matrices."""
        a, b = torch.rand(size, size), torch.rand(size, size)
        return lambda: (a @ b)[:1, :1]

    def embed(self, attention: str = "sdpa") -> Run:
        """Turn strings into mean embeddings; all texts are tokenised in one call, which uses all cores."""
        model, tokenizer = self.model(attention), self.tokenizer()

        def encode(ids, mask):
            mask = torch.from_numpy(mask)
            hidden = model(torch.from_numpy(ids), attention_mask=mask).last_hidden_state
            return mean_of_tokens(hidden, mask.float()).numpy()

        @torch.inference_mode()
        def run():
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(self.texts)]
            return in_order((places, encode(*batch)) for places, *batch in self.token_batches(ids))

        return run

    def states(self, attention: str = "eager", everything: bool = True) -> Run:
        """Turn token ids into all hidden states and attention scores, or for comparison into the last state alone."""
        model = self.model(attention)
        flags = {"output_hidden_states": True, "output_attentions": True} if everything else {}
        batches = [torch.from_numpy(ids.astype(np.int64)) for ids in self.state_ids()]

        @torch.inference_mode()
        def run():
            outputs = [model(ids, attention_mask=(ids != 0).long(), **flags) for ids in batches]
            states, scores = outputs[0].hidden_states, outputs[0].attentions
            return lambda: of_real_tokens(torch.stack(states).numpy(), torch.stack(scores).numpy(), batches[0].numpy())

        return run

    def tokenize(self, batch_size: int) -> Run:
        """Turn strings into token ids, padded to 128; the result is the last batch."""
        tokenizer = self.tokenizer()
        tokenizer.enable_padding(length=MAX_LENGTH)

        def run():
            for start in range(0, len(self.texts), batch_size):
                encodings = tokenizer.encode_batch_fast(self.texts[start : start + batch_size])
                last = np.array([encoding.ids for encoding in encodings])
            return last

        return run

    def train(self, fused: bool = True) -> Run:
        """Fine-tune all weights on token ids."""
        ids, labels = (torch.from_numpy(array) for array in self.training_ids())

        def batches():
            for batch, wanted in zip(ids.split(self.batch_size), labels.split(self.batch_size), strict=True):
                yield batch, torch.ones_like(batch), wanted

        return self._fit(batches, fused)

    def train_messages(self, length: int, fused: bool = True) -> Run:
        """Fine-tune all weights on messages, each batch padded to its longest, as `DataCollatorWithPadding` does."""
        texts, labels = self.training_messages()
        tokenizer = self.tokenizer(length)

        def batches():
            for start in range(0, len(texts), self.batch_size):
                rows = slice(start, start + self.batch_size)
                batch = pad([encoding.ids for encoding in tokenizer.encode_batch_fast(texts[rows])])
                yield *map(torch.from_numpy, batch), torch.from_numpy(labels[rows])

        return self._fit(batches, fused)

    def _fit(self, batches, fused: bool) -> Run:
        """Run forward, backward and AdamW over every batch, with the mean and a dense layer on top."""
        bert = self.model().train()
        bert.pooler.requires_grad_(False)  # nothing reads it: it would have no gradient
        head = torch.nn.Linear(bert.config.hidden_size, 1)
        weights = [parameter for parameter in bert.parameters() if parameter.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.AdamW([*weights, *head.parameters()], lr=1e-5, weight_decay=0.01, fused=fused)
        loss_function = torch.nn.BCEWithLogitsLoss()

        def run():
            losses = []
            for ids, mask, wanted in batches():
                hidden = bert(ids, attention_mask=mask).last_hidden_state
                loss = loss_function(head(mean_of_tokens(hidden, mask.float())), wanted)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            moved = [bool((a != b).any()) for a, b in zip(before, weights, strict=True)]
            return {"loss": np.array(losses), "moved": np.array(moved)}

        return run

    def encode(self, batch: int, length: int, layers: int) -> Run:
        """Turn token ids into mean embeddings; more layers than MiniLM has begin with its first again."""
        model = self.model()
        blocks = model.encoder.layer
        model.encoder.layer = torch.nn.ModuleList(copy.deepcopy(blocks[i % len(blocks)]) for i in range(layers))
        ids = torch.from_numpy(random_ids(batch, length))
        mask = torch.ones_like(ids)

        @torch.inference_mode()
        def run():
            return mean_of_tokens(model(ids, attention_mask=mask).last_hidden_state, mask.float()).numpy()

        return run

    def export_onnx(self) -> Run:
        """Write the encoder as ONNX, plain and with ONNX Runtime's fused operations."""

        class LastState(torch.nn.Module):
            def __init__(self, model) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids, attention_mask, token_type_ids):
                return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

        def run():
            from onnxruntime.transformers.optimizer import optimize_model

            model, ids = self.model("eager"), torch.from_numpy(random_ids(3, 11))
            names = ["input_ids", "attention_mask", "token_type_ids"]
            plain, fused = str(self.work / "bert.onnx"), str(self.work / "bert_fused.onnx")
            # The old exporter: ONNX Runtime's fusions know its graphs of BERT.
            torch.onnx.export(
                LastState(model),
                (ids, torch.ones_like(ids), torch.zeros_like(ids)),
                plain,
                input_names=names,
                output_names=["last_hidden_state"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]},
                opset_version=17,
                dynamo=False,
            )
            sizes = {"num_heads": model.config.num_attention_heads, "hidden_size": model.config.hidden_size}
            optimized = optimize_model(plain, "bert", **sizes, opt_level=1)
            optimized.save_model_to_file(fused)
            fusions = {name: int(count) for name, count in optimized.get_fused_operator_statistics().items() if count}
            (self.work / "onnx_fusions.txt").write_text(", ".join(f"{n} {name}" for name, n in fusions.items()))

        return run
