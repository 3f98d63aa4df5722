"""A clock that nobody can set: seconds since this machine booted, and which boot that was.

An outcome must be kept longer than its request's time to live, even if the wall clock changes and processes restart.
All processes of a host share the boot clock, and it only grows. For a row that an earlier boot wrote, we only know that
at least this boot's whole uptime has passed.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path


@functools.cache
def boot() -> str:
    """The id of the running boot, or '' if the system does not say. Then only the uptime counts."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def uptime_s() -> float:
    """Seconds since boot. Includes suspended time if the system counts it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
