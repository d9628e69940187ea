"""ONNX Runtime, float32, on the graphs that the PyTorch adapter exported, with Hugging Face's fast tokenizer."""

from __future__ import annotations

import numpy as np
import onnxruntime

from benchmarks.peers.base import BaseAdapter, Run, mean_of_tokens, random_ids


class Adapter(BaseAdapter):
    """ONNX Runtime on the CPU with all graph optimisations."""

    packages = ("onnxruntime", "tokenizers")

    def embed(self, graph: str) -> Run:
        return self.over_tokens(self._encoder(graph))

    def encode(self, graph: str, batch: int, length: int, times: int) -> Run:
        """Turn the same random token ids into mean embeddings several times."""
        encode, ids = self._encoder(graph), random_ids(batch, length).astype(np.int64)
        mask = np.ones_like(ids)
        return lambda: [encode(ids, mask) for _ in range(times)][-1]

    def _encoder(self, graph: str):
        """Return a function from ids and mask to mean embeddings, by our file or by PyTorch's."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(self.work / graph), options, providers=["CPUExecutionProvider"])
        # PyTorch's exporter and the fusions leave inputs out or make them int32.
        dtypes = {one.name: np.int32 if "int32" in one.type else np.int64 for one in session.get_inputs()}

        def encode(ids, mask):
            types = np.zeros_like(ids)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            feed |= {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}
            result = session.run(None, {name: feed[name].astype(dtype, copy=False) for name, dtype in dtypes.items()})[
                0
            ]
            return mean_of_tokens(result, mask.astype(np.float32)) if result.ndim == 3 else result

        return encode
