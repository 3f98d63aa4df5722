"""Specialists: contexts that are made by stages, judged by probes, and promoted under the name that filters use."""
