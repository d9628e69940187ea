"""ONNX Runtime, float32, on the graph that the PyTorch adapter exported, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from peers.adapters.base import BaseAdapter, Rows, Run


class Adapter(BaseAdapter):
    """ONNX Runtime on the CPU, all graph optimisations on."""

    packages = ("onnxruntime", "tokenizers")

    def embed(self, pooling: str, graph: str = "bert_fused.onnx") -> Run:
        """Strings to embeddings; all texts are tokenised in one call, which uses all cores."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(self.work / graph), options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(f"{self.minilm}/tokenizer.json")
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        # Both exporters of PyTorch and the fusions leave out inputs or make them int32, as they like.
        dtypes = {one.name: np.int32 if "int32" in one.type else np.int64 for one in session.get_inputs()}

        def run():
            rows = Rows(len(self.texts))
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(self.texts)]
            for places, padded, mask in self.token_batches(ids):
                feed = {"input_ids": padded, "attention_mask": mask, "token_type_ids": np.zeros_like(padded)}
                feed = {name: feed[name].astype(dtype, copy=False) for name, dtype in dtypes.items()}
                (hidden,) = session.run(None, feed)
                rows.put(places, _pooled(hidden, mask, pooling))
            return rows.vectors

        return run


def _pooled(hidden: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[:, None].astype(np.float32)
    return (weights @ hidden)[:, 0] / weights.sum(axis=2)
