"""One peer's process: reads JSON lines from stdin, does what they say, and answers each with one line on stdout.

    {"make": label, "method": …, "options": {…}, "warm_up": 2, "output": …}   build it and run it that often
    {"run": label}                                                            one measured repetition

Started by `harness.Worker`: `python -m benchmarks.worker PEER WORK_FOLDER THREADS`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np


def main() -> None:
    """Serve until stdin ends."""
    name, work, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what frameworks print must not come between the answers
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    def answer(**reply) -> None:
        print(json.dumps(reply), file=answers, flush=True)

    runs = {}
    try:
        adapter = importlib.import_module(f"benchmarks.peers.{name}").Adapter(work, threads)
        held = resident_bytes()
        answer(versions=adapter.versions())
        for line in sys.stdin:
            request = json.loads(line)
            if "make" in request:
                label = request.pop("make")
                runs[label] = make(adapter, **request)
                answer()
            else:
                answer(**measure(runs[request["run"]]), held=held)
    except Exception:
        answer(error=traceback.format_exc())
        sys.exit(1)


def make(adapter, method: str, options: dict, warm_up: int, output: str | None):
    """Return what runs a task once, after `warm_up` runs; write the last one's result as arrays by name."""
    run = getattr(adapter, method)(**options)
    for _ in range(warm_up):
        result = run()
    if output:
        result = result() if callable(result) else result
        np.savez(output, **(result if isinstance(result, dict) else {"result": result}))
    return run


def measure(run) -> dict[str, float]:
    """Run once. Return wall and CPU seconds, the share of the machine that others took, and memory in bytes."""
    everyone, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    result = run()  # noqa: F841  (a loaded model counts as memory kept)
    seconds, own = time.perf_counter() - start, time.process_time() - own
    others = max(busy_seconds() - everyone - own, 0) / seconds / os.cpu_count()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu_seconds": own, "others": others, "peak": peak, "kept": resident_bytes()}


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def busy_seconds() -> float:
    """Return the CPU time of all processes of this machine and of its host's other guests since it started."""
    user, nice, system, _, _, interrupts, soft, stolen, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
