"""Runtimes: they turn tokens and states into logits."""
