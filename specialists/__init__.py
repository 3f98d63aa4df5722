"""Specialists: contexts that are made in stages, tested with probes, and promoted under the name that filters use."""
