"""The models that ship with the project, rwkv7-mini and asm-mini: see README.md beside this file."""

from __future__ import annotations

from pathlib import Path

from models.mini.tokenizer import ByteTokenizer

__all__ = ["ByteTokenizer", "asm_path", "path"]


def path() -> Path:
    """The weights of rwkv7-mini."""
    return Path(__file__).with_name("rwkv7-mini.safetensors")


def asm_path() -> Path:
    """The weights of asm-mini, with their configuration."""
    return Path(__file__).with_name("asm-mini.safetensors")
