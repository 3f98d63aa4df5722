"""The models that ship with the project: rwkv7-mini and asm-mini. README.md in this folder describes them."""

from __future__ import annotations

from pathlib import Path

from models.mini.tokenizer import ByteTokenizer

__all__ = ["ByteTokenizer", "asm_path", "path"]


def path() -> Path:
    """The path of rwkv7-mini's weights."""
    return Path(__file__).with_name("rwkv7-mini.safetensors")


def asm_path() -> Path:
    """The path of asm-mini's weights; the file holds their configuration, too."""
    return Path(__file__).with_name("asm-mini.safetensors")
