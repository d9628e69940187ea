"""ONNX Runtime, float32, on the graphs that the PyTorch adapter exported, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from benchmarks.peers.base import MAX_LENGTH, BaseAdapter, Run, in_order, mean_of_tokens


class Adapter(BaseAdapter):
    """ONNX Runtime on the CPU with all graph optimisations."""

    packages = ("onnxruntime", "tokenizers")

    def embed(self, graph: str) -> Run:
        """Turn strings into mean embeddings; all texts are tokenised in one call, which uses all cores."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(self.work / graph), options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(f"{self.minilm}/tokenizer.json")
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_LENGTH)
        # The exporters of PyTorch and the fusions leave inputs out or make them int32.
        dtypes = {one.name: np.int32 if "int32" in one.type else np.int64 for one in session.get_inputs()}

        def encode(ids, mask):
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            (hidden,) = session.run(None, {name: feed[name].astype(dtype) for name, dtype in dtypes.items()})
            return mean_of_tokens(hidden, mask.astype(np.float32))

        def run():
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(self.texts)]
            return in_order((places, encode(*batch)) for places, *batch in self.token_batches(ids))

        return run
