"""Translates the NUL-terminated TCP protocol of port 6502 into client calls."""
