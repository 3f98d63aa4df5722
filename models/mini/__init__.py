"""rwkv7-mini, the model that ships with the project: see README.md beside this file."""

from __future__ import annotations

from pathlib import Path

from models.mini.tokenizer import ByteTokenizer

__all__ = ["ByteTokenizer", "path"]


def path() -> Path:
    """The weights of rwkv7-mini."""
    return Path(__file__).with_name("rwkv7-mini.safetensors")
