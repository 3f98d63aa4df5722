"""Time that no one can set: seconds since this machine booted, and which boot that was.

An outcome must outlive its request's time to live whatever the wall clock does, and processes come and go meanwhile.
The boot clock is common to all processes of a host and only ever grows. Of a row that an earlier boot wrote, at least
this boot's whole uptime has passed, and no more is claimed.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path


@functools.cache
def boot() -> str:
    """Names the running boot; '' where the system does not tell (rows then live by uptime alone)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def uptime_s() -> float:
    """Seconds since boot, suspended time included where the system counts it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
