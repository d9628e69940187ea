"""One contender's process: it waits on stdin for JSON lines, does what they say, and answers on stdout, one line each.

    {"do": "make", "key": …, "task": …, "options": {…}}   build it, warm it up; says how long that took
    {"do": "run", "key": …}                               one measured repetition
    {"do": "drop", "key": …}                              forget it

Run by `harness.Worker`, never by hand: `python worker.py ADAPTER WORK_FOLDER THREADS`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Serve until stdin ends."""
    name, work, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    # What frameworks print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # This folder's modules have everyday names; they must hide nobody's.
    sys.path.pop(0)
    sys.path.append(str(HERE.parent))
    if name == "ours":
        sys.path.insert(0, str(HERE.parent.parent))
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    from peers.adapters import make_adapter
    from peers.process import busy_seconds, peak_bytes, resident_bytes

    runs = {}

    def memory():
        return {"peak": peak_bytes(), "resident": resident_bytes()}

    def serve(request):
        if request["do"] == "make":
            start = time.perf_counter()
            run = getattr(adapter, request["task"])(**request["options"])
            built = time.perf_counter() - start
            for _ in range(request["warm_up"]):
                result = run()
            if request.get("output"):
                adapter.write(request["output"], result)
            runs[request["key"]] = run
            return {"built": built, "warm": time.perf_counter() - start, **memory()}
        if request["do"] == "drop":
            del runs[request["key"]]
            return {}
        run = runs[request["key"]]
        all_before, own_before, start = busy_seconds(), time.process_time(), time.perf_counter()
        run()
        seconds, own, everyone = time.perf_counter() - start, time.process_time() - own_before, busy_seconds()
        others = None if everyone is None else max(everyone - all_before - own, 0) / seconds / os.cpu_count()
        return {"seconds": seconds, "cpu_seconds": own, "others": others, **memory()}

    def answer(make):
        try:
            reply = make()
        except Exception:
            reply = {"error": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    adapter = None

    def start():
        nonlocal adapter
        adapter = make_adapter(name, work, threads)
        return {"versions": adapter.versions(), "held": resident_bytes()}

    answer(start)
    for line in sys.stdin:
        request = json.loads(line)
        answer(lambda request=request: serve(request))


if __name__ == "__main__":
    main()
