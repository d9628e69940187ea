"""ONNX Runtime, float32, on the graphs that the PyTorch adapter exported, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import numpy as np
import onnxruntime

from benchmarks.peers.base import BaseAdapter, Run, mean_of_tokens


class Adapter(BaseAdapter):
    """ONNX Runtime on the CPU with all graph optimisations."""

    packages = ("onnxruntime", "tokenizers")

    def embed(self, graph: str) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(self.work / graph), options, providers=["CPUExecutionProvider"])
        # PyTorch's exporter and the fusions leave inputs out or make them int32.
        dtypes = {one.name: np.int32 if "int32" in one.type else np.int64 for one in session.get_inputs()}

        def encode(ids, mask):
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            feed = {name: feed[name].astype(dtype, copy=False) for name, dtype in dtypes.items()}
            return mean_of_tokens(session.run(None, feed)[0], mask.astype(np.float32))

        return self.over_tokens(encode)
