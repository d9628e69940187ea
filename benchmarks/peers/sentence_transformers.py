"""sentence-transformers' own `encode`, of all-MiniLM-L6-v2 from local files."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.peers.base import MAX_LENGTH, BaseAdapter, Run


class Adapter(BaseAdapter):
    """SentenceTransformer as its users call it; it sorts by length and pads to each batch's longest itself."""

    packages = ("sentence-transformers", "transformers", "torch")

    def embed(self) -> Run:
        """Turn strings into embeddings of length 1, as this model does."""
        torch.set_num_threads(self.threads)
        model = SentenceTransformer(self.minilm, device="cpu")
        model.max_seq_length = MAX_LENGTH
        return lambda: model.encode(self.texts, batch_size=self.batch_size, show_progress_bar=False)
