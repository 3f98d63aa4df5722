"""The shared ground of ssmprov: wire messages, errors, names, settings, configuration, text grammars."""

__version__ = "0.1.0"
