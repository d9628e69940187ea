"""`examples/serving/fastapi_server.py` under load: many clients, hostile ones beside them, and a kill in the middle.

    python benchmarks/run.py http_load spam_export --minutes 10

For each number of clients the server is asked for a share of the time, killed halfway, and started again. Every answer
is compared with what the same export gives here. Reported are texts per second, the median and the 99th percentile of
the time to an answer, what was answered, refused or cut off by the kill, and the server's memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, say

SERVER = ROOT / "examples" / "serving" / "fastapi_server.py"
HOSTILE = [
    b"no JSON",
    b'{"texts": [["of", "another", "rank"]]}',
    '{"texts": ["Grüße"]}'.encode("latin-1"),
    json.dumps({"texts": ["x" * 30_000]}).encode(),
]


class Server:
    """The server's process."""

    def __init__(self, export: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [sys.executable, str(SERVER), export, "--port", str(self.port)]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        self.process = subprocess.Popen(self._command, start_new_session=True)
        while True:
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("the server ended") from None
            time.sleep(0.2)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill it and its processes, as an accident would."""
        subprocess.run(["pkill", "-9", "-s", str(self.process.pid)], check=False)
        self.process.wait()

    def megabytes(self) -> float:
        """Return the resident memory of its processes."""
        found = subprocess.run(["ps", "-o", "rss=", "-s", str(self.process.pid)], capture_output=True, text=True)
        return sum(map(int, found.stdout.split())) / 1024


class Load:
    """Clients that ask until told to stop."""

    def __init__(self, server: Server, texts: list[str], expected: np.ndarray) -> None:
        self._server, self._texts, self._expected = server, texts, expected
        self.counts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._ended = threading.Event()

    def run(self, clients: int, seconds: float) -> None:
        """Ask for so long; kill the server halfway and start it again."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        threads.append(threading.Thread(target=self._annoy))
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        self._server.kill()
        self._server.start()
        time.sleep(seconds / 2)
        self._ended.set()
        for thread in threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        choose = random.Random(seed)
        while not self._ended.is_set():
            rows = choose.sample(range(len(self._texts)), choose.randint(1, 4))
            texts = [self._texts[row] for row in rows]
            body = json.dumps({"texts": texts}).encode()
            began = time.perf_counter()
            try:
                status, answer = self._server.ask("POST", "/predict", body)
            except ConnectionRefusedError:  # it is not there yet
                time.sleep(0.2)
                continue
            except (OSError, http.client.HTTPException):
                self.counts["cut off"] += 1
                continue
            self.counts[f"status {status}"] += 1
            if status == 200:
                self.seconds.append(time.perf_counter() - began)
                self.counts["texts"] += len(texts)
                got = np.reshape(json.loads(answer)["probability"], -1)
                if np.abs(got - self._expected[rows]).max() > 1e-4:
                    self.counts["wrong"] += 1

    def _annoy(self) -> None:
        while not self._ended.is_set():
            for body in HOSTILE:
                try:
                    status, _ = self._server.ask("POST", "/predict", body)
                    self.counts["hostile, refused" if 400 <= status < 500 else f"hostile, {status}"] += 1
                except (OSError, http.client.HTTPException):
                    pass
                time.sleep(0.1)
            try:  # one that sends half a request and no more
                with socket.create_connection(("127.0.0.1", self._server.port)) as connection:
                    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
                    self._ended.wait(1)
            except OSError:
                pass


def main(argv: list[str]) -> int:
    """Print a table; return 1 if any answer was wrong."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (its operations)

    parser = argparse.ArgumentParser(prog="run.py http_load", description=__doc__)
    parser.add_argument("export", help="what export_saved_model wrote of a classifier with one probability")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--minutes", type=float, default=10, help="for all numbers of clients together")
    options = parser.parse_args(argv)
    lines = (ROOT / "examples" / "data" / "sms_sample.tsv").read_text(encoding="utf-8").split("\n")[1:]
    texts = [line.split("\t")[-1] for line in lines if line]
    export = str(Path(options.export).resolve())
    expected = tf.saved_model.load(export).serve(tf.constant(texts))["probability"].numpy()[:, 0]
    failed = 0
    print("| clients | texts/s | p50, ms | p99, ms | memory before and after, MiB | counts |")
    print("| ---: | ---: | ---: | ---: | ---: | --- |")
    for clients in options.clients:
        say(f"{clients} clients")
        server = Server(export)
        load = Load(server, texts, expected)
        before, seconds = server.megabytes(), 60 * options.minutes / len(options.clients)
        load.run(clients, seconds)
        after = server.megabytes()
        server.process.terminate()
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            load.counts["did not end by itself"] += 1
            server.kill()
        counts, times = load.counts, 1000 * np.array(load.seconds)
        rate, failed = counts.pop("texts") / seconds, failed + counts["wrong"]
        counts = ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items()))
        p50, p99 = np.percentile(times, [50, 99])
        print(f"| {clients} | {rate:.0f} | {p50:.0f} | {p99:.0f} | {before:.0f}, {after:.0f} | {counts} |", flush=True)
    return int(failed > 0)
