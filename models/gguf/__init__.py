"""GGUF model files: what they hold and who they are. `models.gguf.convert`, which needs torch, writes them."""

from models.gguf.header import GgufError
from models.gguf.identity import cached_fingerprint, fingerprint
from models.gguf.reader import Description, describe, family

__all__ = ["Description", "GgufError", "cached_fingerprint", "describe", "family", "fingerprint"]
