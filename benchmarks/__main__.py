"""`python -P -m benchmarks`: the same as `ssmprov bench`."""

from __future__ import annotations

from benchmarks.cli import bench

if __name__ == "__main__":
    bench()
