"""Serve an exported model over HTTP with FastAPI and uvicorn; requests that wait together are computed together.

    pip install fastapi uvicorn prometheus-client tensorflow-text
    python examples/serving/fastapi_server.py spam_export --port 8080
    curl localhost:8080/predict -d '{"texts": ["Win a prize now", "See you at noon"]}'

`spam_export` is a folder that `keras_bert_trend.export_saved_model` wrote; the package itself is not needed here.

* `POST /predict`: `{"texts": [...]}` → one list for each output of the model, in the order of the texts
* `GET /health`: 200 once the model is loaded and warm
* `GET /metrics`: Prometheus: requests by status, seconds, texts per batch

What is refused: bodies over 1 MB (413), that are no JSON or no texts (400), too many or too long texts (413), bodies
that take longer than 10 s to arrive (408), and requests while 1,024 wait (503). Ctrl-C or SIGTERM stops accepting,
answers what was accepted, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastapi
import prometheus_client
import uvicorn
from starlette.requests import ClientDisconnect

MAX_BODY, MAX_TEXTS, MAX_CHARACTERS = 1_000_000, 64, 20_000
BODY_SECONDS = 10
MAX_BATCH, MAX_WAITING = 64, 1024
WAIT_SECONDS = 0.002  # for others to join a batch; less than one text takes to compute

REQUESTS = prometheus_client.Counter("requests", "Requests answered", ["status"])
SECONDS = prometheus_client.Histogram("request_seconds", "From the whole body to the answer")
BATCHES = prometheus_client.Histogram("batch_texts", "Texts computed together", buckets=[1, 2, 4, 8, 16, 32, 64])


class Batcher:
    """Computes the texts of several requests at once, in one thread."""

    def __init__(self, compute: Callable[[Sequence[str]], dict[str, list]]) -> None:
        self._compute = compute
        self._waiting: asyncio.Queue = asyncio.Queue(MAX_WAITING)
        self._thread = ThreadPoolExecutor(1)

    async def predict(self, texts: Sequence[str]) -> dict[str, list]:
        """Return the outputs of the texts; raise `asyncio.QueueFull` if too many requests wait."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((texts, answer))
        return await answer

    async def run(self) -> None:
        """Answer requests until cancelled."""
        first = await self._waiting.get()
        while True:
            batch, first = await self._fill(first)
            texts = [text for some, _ in batch for text in some]
            BATCHES.observe(len(texts))
            try:
                outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, texts)
                start = 0
                for some, answer in batch:
                    if not answer.done():  # the client may have gone
                        stop = start + len(some)
                        answer.set_result({name: rows[start:stop] for name, rows in outputs.items()})
                    start += len(some)
            except Exception as error:  # answered with 500, and logged there
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            first = first or await self._waiting.get()

    async def _fill(self, first):
        """Return the requests of a batch, and the one that no longer fits."""
        batch, count = [first], len(first[0])
        await asyncio.sleep(WAIT_SECONDS)
        while count < MAX_BATCH and not self._waiting.empty():
            request = self._waiting.get_nowait()
            if count + len(request[0]) > MAX_BATCH:
                return batch, request
            batch.append(request)
            count += len(request[0])
        return batch, None


async def read_texts(request: fastapi.Request) -> list[str]:
    """Return the texts of a request, or raise `HTTPException` that says what is wrong with it."""

    async def read() -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise fastapi.HTTPException(413, f"the body has more than {MAX_BODY:,} bytes")
        return bytes(body)

    try:
        body = await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise fastapi.HTTPException(408, f"the body took longer than {BODY_SECONDS} s") from None
    except ClientDisconnect:
        raise fastapi.HTTPException(400, "the client left") from None
    try:
        texts = json.loads(body.decode())["texts"]
        if not isinstance(texts, list) or not texts:
            raise ValueError
        sizes = [len(text.encode()) and len(text) for text in texts]  # a lone surrogate cannot be encoded
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise fastapi.HTTPException(400, 'the body must be UTF-8 JSON: {"texts": ["one", "or more"]}') from None
    if len(texts) > MAX_TEXTS or max(sizes) > MAX_CHARACTERS:
        raise fastapi.HTTPException(413, f"at most {MAX_TEXTS} texts of {MAX_CHARACTERS:,} characters each")
    return texts


def make_app(compute: Callable[[Sequence[str]], dict[str, list]]) -> fastapi.FastAPI:
    """Return the application around a function from texts to named outputs."""
    batcher = Batcher(compute)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        worker = asyncio.create_task(batcher.run())
        yield  # uvicorn goes on here when all requests are answered
        worker.cancel()

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(request: fastapi.Request) -> dict[str, Any]:
        texts = await read_texts(request)
        with SECONDS.time():
            try:
                return await batcher.predict(texts)
            except asyncio.QueueFull:
                raise fastapi.HTTPException(503, "too many requests wait", {"Retry-After": "1"}) from None

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.middleware("http")
    async def count(request: fastapi.Request, call_next):
        status = 500
        try:
            response = await call_next(request)
            status = response.status_code
            return response
        finally:
            REQUESTS.labels(status).inc()

    app.mount("/metrics", prometheus_client.make_asgi_app())
    return app


def load(path: str) -> Callable[[Sequence[str]], dict[str, list]]:
    """Return the function of an export, warm: the first call of a graph takes seconds."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (its operations)

    model = tf.saved_model.load(path)

    def compute(texts):
        outputs = {name: values.numpy() for name, values in model.serve(tf.constant(texts)).items()}
        return {
            name: [value.decode() for value in values] if values.dtype == object else values.tolist()
            for name, values in outputs.items()
        }

    for count in (1, MAX_BATCH):
        compute(["a few words to warm up"] * count)
    return compute


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="the folder that export_saved_model wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    uvicorn.run(make_app(load(options.export)), host=options.host, port=options.port, log_level="warning")
