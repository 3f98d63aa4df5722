"""Branches: the tree of contexts, and the dialogs that try a turn again."""
