"""Gradient work over `models/`: the models that ship are trained here, and specialists tuned and trained on rows."""
