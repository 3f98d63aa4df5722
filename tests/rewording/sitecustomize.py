"""Python imports this at the start of every process that has this folder on its PYTHONPATH."""

import reworded

reworded.install()
