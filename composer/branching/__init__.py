"""Branches: the tree of contexts, and the dialogs for rerolls, edits, forks and comparisons."""
