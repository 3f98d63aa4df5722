"""One model's checkpoints: immutable state objects, and a catalogue of names, lineages and outcomes."""

from workers.checkpoints.results import ANY, Commit, Committed, Done, Expect, Loaded, RequestKey
from workers.checkpoints.store import Store

__all__ = ["ANY", "Commit", "Committed", "Done", "Expect", "Loaded", "RequestKey", "Store"]
