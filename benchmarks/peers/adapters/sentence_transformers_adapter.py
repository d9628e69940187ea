"""sentence-transformers' own `encode`, of all-MiniLM-L6-v2 from local files."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from peers.adapters.base import BaseAdapter, Run


class Adapter(BaseAdapter):
    """SentenceTransformer, as its users call it; it sorts by length and pads to each batch's longest itself."""

    packages = ("sentence-transformers", "transformers", "torch")

    def __init__(self, work: Path, threads: int) -> None:
        super().__init__(work, threads)
        torch.set_num_threads(threads)

    def embed(self, pooling: str = "mean") -> Run:
        """Strings to embeddings, divided by their lengths as this model does."""
        model = SentenceTransformer(self.minilm, device="cpu")
        model.max_seq_length = self.max_length
        return lambda: model.encode(self.texts, batch_size=self.batch_size, show_progress_bar=False)
