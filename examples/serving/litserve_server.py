"""Serve an exported model over HTTP with LitServe, which batches requests and runs the model in a process of its own.

    pip install litserve prometheus-client tensorflow-text
    python examples/serving/litserve_server.py spam_export --port 8080
    curl localhost:8080/predict -H 'Content-Type: application/json' -d '{"text": "Win a prize now"}'

`spam_export` is a folder that `keras_bert_trend.export_saved_model` wrote. LitServe answers `/health`; `/metrics` has
Prometheus' counts. One text a request, at most 20,000 characters (413). LitServe limits neither the size of a body nor
the time that it takes: put a proxy such as nginx in front, or take `fastapi_server.py`.
"""

from __future__ import annotations

import argparse

import litserve
import prometheus_client
from fastapi import HTTPException

MAX_CHARACTERS = 20_000
REQUESTS = prometheus_client.Counter("requests", "Requests answered", ["status"])


class Classifier(litserve.LitAPI):
    """The doors of LitServe: what a request holds, the batch's outputs, what is answered."""

    def __init__(self, export: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.export = export

    def setup(self, device) -> None:
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  (its operations)

        self.constant = tf.constant
        self.model = tf.saved_model.load(self.export)
        self.predict(["a few words to warm up"])

    def decode_request(self, request):
        text = request.get("text") if isinstance(request, dict) else None
        if not isinstance(text, str):
            raise HTTPException(400, 'the body must be JSON: {"text": "one text"}')
        if len(text) > MAX_CHARACTERS:
            raise HTTPException(413, f"the text has more than {MAX_CHARACTERS:,} characters")
        return text.encode(errors="replace").decode()  # a lone surrogate is no text

    def batch(self, inputs):
        return inputs

    def predict(self, texts):
        return {name: values.numpy() for name, values in self.model.serve(self.constant(texts)).items()}

    def unbatch(self, outputs):
        return [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]

    def encode_response(self, row):
        return {name: value.decode() if isinstance(value, bytes) else value.tolist() for name, value in row.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="the folder that export_saved_model wrote")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    classifier = Classifier(options.export, max_batch_size=64, batch_timeout=0.002)
    server = litserve.LitServer(classifier, accelerator="cpu", timeout=30)

    @server.app.middleware("http")
    async def _count(request, call_next):
        response = await call_next(request)
        REQUESTS.labels(response.status_code).inc()
        return response

    server.app.mount("/metrics", prometheus_client.make_asgi_app())
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
