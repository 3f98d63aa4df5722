"""Specialists: contexts that are made in stages, tested with probes, and promoted to the name that filters use."""
