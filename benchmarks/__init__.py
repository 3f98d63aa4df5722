"""Benchmarks (`make bench`): each figure compares two sides that are measured in the same run.

There is one file per group of figures. `measure` takes the samples and `report` writes them. The measured processes
are `serving` (models served by `ssmprov up`), `peers` (sockets without ssmprov), `bare` and `bare_llama` (models
without ssmprov).
"""
