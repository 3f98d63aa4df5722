"""Experiments on models. They are not part of serving; their findings inform the rest."""
