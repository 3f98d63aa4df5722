"""Describes and identifies GGUF model files. `models.gguf.convert` writes them; it needs torch."""

from models.gguf.header import GgufError
from models.gguf.identity import cached_fingerprint, fingerprint
from models.gguf.reader import Description, describe, family

__all__ = ["Description", "GgufError", "cached_fingerprint", "describe", "family", "fingerprint"]
