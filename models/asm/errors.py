"""What can be wrong with what this package is given.

ValueError
  +- ASMError
       +- ConfigError    a field, an option or a combination of them
       +- WeightsError   a checkpoint: file, key, shape, value
       +- InputError     a call: length, mask, flag, state
"""

from __future__ import annotations


class ASMError(ValueError):
    """Input that cannot be used; the message says what it is and where."""


class ConfigError(ASMError):
    """A configuration that no model can have."""


class WeightsError(ASMError):
    """A checkpoint that does not fit; the message names the file and the key."""


class InputError(ASMError):
    """A call that cannot be answered: its length, mask, flag or state."""
