"""Runtimes: what turns tokens and states into logits."""
