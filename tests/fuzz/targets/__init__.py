"""The decoders of the project as targets of the fuzzer."""

from __future__ import annotations

import importlib

from fuzz.engine import Target

ROOMS = ("wires", "machines", "texts", "files", "keyring", "models", "addressed")


def all_targets() -> dict[str, Target]:
    """Every target by its name. Those of an extra that is not installed are left out."""
    found: dict[str, Target] = {}
    for room in ROOMS:
        try:
            module = importlib.import_module(f"fuzz.targets.{room}")
        except ModuleNotFoundError as error:
            if error.name in ("gguf", "torch"):
                continue
            raise
        found |= {target.name: target for target in module.TARGETS}
    return found


def close() -> None:
    """Give back what the targets hold between their runs."""
    from fuzz.targets import files, texts

    files.SHOP.close()
    texts.LOOP.close()
