"""Fuzzing: damaged and hostile bytes for every decoder, and for the processes that run.

`engine` drives a `Target` with mutations of its seeds, `targets` are the decoders, `live` are the processes, and
`corpus/TARGET/` keeps the inputs that once found a fault, which the tests replay. `make fuzz` runs it for longer.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"

for neighbour in ("broker", "workers/checkpoints", "models"):  # their test kits, as pytest puts them on the path
    if (folder := str(HERE.parent / neighbour)) not in sys.path:
        sys.path.append(folder)
