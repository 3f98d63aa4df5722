"""Looks inside a model: what it expects to come next, what moves that, and which slots it needs."""
