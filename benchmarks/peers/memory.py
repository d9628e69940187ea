"""What a process holds; standard library alone, for it runs in every environment."""

from __future__ import annotations

import resource
import sys


def resident_bytes() -> int:
    """Return this process's resident memory now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def peak_bytes() -> int:
    """Return the most that this process ever held (`ru_maxrss`)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
