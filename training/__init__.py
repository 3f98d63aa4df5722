"""Gradient work over `models/`: the data, the loop and the measuring of the models that ship, rwkv7-mini and asm-mini."""
