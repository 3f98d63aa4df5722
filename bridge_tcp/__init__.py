"""The null-terminated TCP protocol of port 6502, translated into client calls."""
