"""Gradient work over `models/`: data, loop and measuring of the models that ship, rwkv7-mini and asm-mini."""
