"""transformers' BertModel and PyTorch, eagerly, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from transformers import BertModel

from benchmarks.peers.base import MAX_LENGTH, BaseAdapter, Run, mean_of_tokens, of_real_tokens, pad, random_ids


class Adapter(BaseAdapter):
    """PyTorch."""

    packages = ("torch", "transformers", "tokenizers")

    def __init__(self, work: Path, threads: int) -> None:
        super().__init__(work, threads)
        torch.set_num_threads(threads)

    def model(self, attention: str = "sdpa") -> BertModel:
        """Return MiniLM for inference."""
        return BertModel.from_pretrained(self.minilm, attn_implementation=attention, dtype=torch.float32).eval()

    def matmul(self, size: int) -> Run:
        a, b = torch.rand(size, size), torch.rand(size, size)
        return lambda: (a @ b)[:1, :1]

    def embed(self, attention: str = "sdpa") -> Run:
        model = self.model(attention)

        @torch.inference_mode()
        def encode(ids, mask):
            mask = torch.from_numpy(mask)
            hidden = model(torch.from_numpy(ids), attention_mask=mask).last_hidden_state
            return mean_of_tokens(hidden, mask.float()).numpy()

        return self.over_tokens(encode)

    def states(self, attention: str = "eager", everything: bool = True) -> Run:
        """Turn token ids into all hidden states and attention scores, or for comparison into the last state alone."""
        model = self.model(attention)
        flags = {"output_hidden_states": True, "output_attentions": True} if everything else {}
        batches = [torch.from_numpy(ids.astype(np.int64)) for ids in self.arrays("states")]

        @torch.inference_mode()
        def run():
            outputs = [model(ids, attention_mask=(ids != 0).long(), **flags) for ids in batches]
            states, scores = outputs[0].hidden_states, outputs[0].attentions
            return lambda: of_real_tokens(torch.stack(states).numpy(), torch.stack(scores).numpy(), batches[0].numpy())

        return run

    def tokenize(self, batch_size: int) -> Run:
        tokenizer = self.hugging_face_tokenizer()
        tokenizer.enable_padding(length=MAX_LENGTH)

        def encode(texts):
            return np.array([encoding.ids for encoding in tokenizer.encode_batch_fast(texts)])

        starts = range(0, len(self.texts), batch_size)
        return lambda: [encode(self.texts[i : i + batch_size]) for i in starts][-1]

    def train(self, length: int | None = None, fused: bool = True) -> Run:
        """Fine-tune all weights, on token ids, or on texts with batches padded to their longest."""
        bert = self.model().train()
        bert.pooler.requires_grad_(False)  # nothing reads it: it would have no gradient
        head = torch.nn.Linear(bert.config.hidden_size, 1)
        weights = [parameter for parameter in bert.parameters() if parameter.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.AdamW([*weights, *head.parameters()], lr=1e-5, weight_decay=0.01, fused=fused)
        loss_function = torch.nn.BCEWithLogitsLoss()
        data, labels = self.arrays("train")
        data = self.training_texts if length else data
        tokenizer = self.hugging_face_tokenizer(length) if length else None

        def step(data, labels) -> float:
            if tokenizer:
                data = [encoding.ids for encoding in tokenizer.encode_batch_fast(data)]
            ids, mask = map(torch.from_numpy, pad(data) if tokenizer else (data, np.ones_like(data)))
            hidden = bert(ids, attention_mask=mask).last_hidden_state
            loss = loss_function(head(mean_of_tokens(hidden, mask.float())), torch.from_numpy(labels))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.item()

        def run():
            batches = [slice(i, i + self.batch_size) for i in range(0, len(labels), self.batch_size)]
            losses = [step(data[batch], labels[batch]) for batch in batches]
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
            torch.onnx.export(
                LastState(model),
                (ids, torch.ones_like(ids), torch.zeros_like(ids)),
                plain,
                input_names=names,
                output_names=["last_hidden_state"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]},
                opset_version=17,
                dynamo=False,  # ONNX Runtime's fusions know the old exporter's graphs of BERT
            )
            sizes = {"num_heads": model.config.num_attention_heads, "hidden_size": model.config.hidden_size}
            optimized = optimize_model(plain, "bert", **sizes, opt_level=1)
            optimized.save_model_to_file(fused)
            fusions = {name: int(count) for name, count in optimized.get_fused_operator_statistics().items() if count}
            (self.work / "onnx_fusions.txt").write_text(", ".join(f"{n} {name}" for name, n in fusions.items()))

        return run
