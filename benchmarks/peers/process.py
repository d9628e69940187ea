"""What a process holds, and how busy the machine is; standard library alone, for it runs in every environment."""

from __future__ import annotations

import os
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


def busy_seconds() -> float | None:
    """Return the CPU time that all processes of the machine, and its host's other guests, have taken so far."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _, _, interrupts, soft, stolen, *_ = map(int, file.readline().split()[1:])
    except (OSError, ValueError):
        return None
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
