"""Experiments on models, which serve nobody: what is found here informs the rest."""
