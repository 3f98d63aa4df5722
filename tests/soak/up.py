"""`ssmprov up`, but that its longest pause before a lost child is started again is short.

The pauses grow for a child that keeps failing; under a nemesis that kills every second nearly all would soon wait for
their ten seconds, and the soak would test a system that stands still.
"""

from __future__ import annotations

import sys

from broker import children
from ssmprov.main import main

LONGEST_S = 0.4

if __name__ == "__main__":
    children.LONGEST_DELAY_S = LONGEST_S
    sys.exit(main())
