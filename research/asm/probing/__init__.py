"""Looks inside a model: which token it expects next, what changes that, and which slots it needs."""
