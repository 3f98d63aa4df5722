"""Gradient work over `models/`: the data, the loop and the measuring of rwkv7-mini."""
