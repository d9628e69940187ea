"""The FastAPI server of `examples/serving/`: answers are those of the model, exactly one each, whatever clients do."""

import asyncio
import importlib.util
import json
import socket
import threading
import time
from collections import Counter

import pytest

from tests.common import ROOT

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


@pytest.fixture(scope="module")
def server_module():
    path = ROOT / "examples" / "serving" / "fastapi_server.py"
    spec = importlib.util.spec_from_file_location("fastapi_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Running:
    """A server in a thread, around a model that returns each text's length and keeps what it was asked."""

    def __init__(self, module, seconds: float = 0.0) -> None:
        self.seconds, self.seen, self.batches = seconds, Counter(), []
        config = uvicorn.Config(module.make_app(self.compute), port=0, log_level="critical")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def compute(self, texts):
        time.sleep(self.seconds)
        if "fail" in texts:
            raise RuntimeError("the model failed")
        self.seen.update(texts)
        self.batches.append(len(texts))
        return {"length": [[len(text)] for text in texts], "label": [text.upper() for text in texts]}

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    async def post(self, body: bytes, path: str = "/predict", pause: float = 0.0) -> tuple[int, dict]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body[:10])
            await asyncio.sleep(pause)
            writer.write(body[10:])
            answer = await reader.read()
        finally:
            writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content)

    def get(self, path: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def body_of(*texts: str) -> bytes:
    return json.dumps({"texts": texts}).encode()


def test_every_request_gets_its_own_answer_once(server_module):
    texts = [[f"text {i}", "x" * (i % 7)] for i in range(200)]
    with Running(server_module, seconds=0.005) as running:

        async def all_of_them():
            return await asyncio.gather(*(running.post(body_of(*some)) for some in texts))

        answers = asyncio.run(all_of_them())
        metrics = running.get("/metrics/")
        assert '"status":"ok"' in running.get("/health")
    for some, (status, answer) in zip(texts, answers, strict=True):
        assert status == 200
        assert answer == {"length": [[len(text)] for text in some], "label": [text.upper() for text in some]}
    assert all(running.seen[f"text {i}"] == 1 for i in range(200))
    assert max(running.batches) <= server_module.MAX_BATCH
    assert len(running.batches) < 200  # some were computed together
    assert 'requests_total{status="200"}' in metrics


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not JSON at all", 400),
        (b"[" * 100_000, 400),
        (b'{"texts": "one"}', 400),
        (b'{"texts": []}', 400),
        (b'{"texts": [["a", "b"]]}', 400),  # of another rank
        (b'{"texts": [1]}', 400),
        (b'{"text": ["a"]}', 400),
        (b'{"texts": ["\\ud800"]}', 400),
        ('{"texts": ["Grüße"]}'.encode("latin-1"), 400),
        (body_of(*["a"] * 65), 413),
        (body_of("a" * 20_001), 413),
        (body_of("a" * 1_000_001), 413),
        (body_of("fail"), 500),
        (body_of("Grüße", ""), 200),
    ],
)
def test_what_clients_get_wrong(server_module, body, status):
    with Running(server_module) as running:
        if status == 500:
            assert "500" in asyncio.run(raw_status(running, body))
        else:
            assert asyncio.run(running.post(body))[0] == status
        assert asyncio.run(running.post(body_of("and it goes on")))[0] == 200


async def raw_status(running: Running, body: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    line = await reader.readline()
    writer.close()
    return line.decode()


def test_a_slow_client_is_given_up_and_holds_nobody_up(server_module, monkeypatch):
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.3)
    with Running(server_module) as running:

        async def both():
            slow = asyncio.create_task(running.post(body_of("slow"), pause=1.0))
            await asyncio.sleep(0.05)
            return await running.post(body_of("quick")), await slow

        (quick, _), (slow, _) = asyncio.run(both())
    assert (quick, slow) == (200, 408)


def test_more_than_may_wait_are_refused(server_module, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_WAITING", 2)
    monkeypatch.setattr(server_module, "MAX_BATCH", 1)
    with Running(server_module, seconds=0.1) as running:

        async def many():
            return await asyncio.gather(*(running.post(body_of(str(i))) for i in range(12)))

        statuses = Counter(status for status, _ in asyncio.run(many()))
    assert statuses[200] == sum(running.seen.values()) > 0
    assert statuses[200] + statuses[503] == 12
    assert statuses[503] > 0


def test_what_was_accepted_is_answered_before_it_ends(server_module):
    with Running(server_module, seconds=0.2) as running:

        async def while_it_ends():
            asking = [asyncio.create_task(running.post(body_of(f"text {i}"))) for i in range(20)]
            while not running.batches:
                await asyncio.sleep(0.01)
            running.server.should_exit = True
            return await asyncio.gather(*asking)

        answers = asyncio.run(while_it_ends())
    assert [status for status, _ in answers] == [200] * 20
    assert sum(running.seen.values()) == 20
