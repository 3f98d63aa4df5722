"""The errors that this package raises for wrong input.

ValueError
  +- ASMError
       +- ConfigError    a field, an option or a combination of them
       +- WeightsError   a checkpoint: file, key, shape, value
       +- InputError     a call: length, mask, flag, state
"""

from __future__ import annotations


class ASMError(ValueError):
    """Input that cannot be used. The message says what is wrong, and where."""


class ConfigError(ASMError):
    """A configuration that is not valid."""


class WeightsError(ASMError):
    """A checkpoint that cannot be loaded. The message names the file and the key."""


class InputError(ASMError):
    """A call whose length, mask, flag or state is not valid."""
