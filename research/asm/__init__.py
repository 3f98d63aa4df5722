"""Experiments on Addressed State Models: a smoke run, and probes of routing and slots."""
