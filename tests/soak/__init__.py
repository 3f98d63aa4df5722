"""The soak: real processes under random load while a nemesis kills them, and a checker of what the clients saw.

conductor   one run: start, load, nemesis, quiet, final reads, checks, verdict
system      the served working directory and its processes;  nemesis  what is done to them, and when
player      the load: what a client asks next (choices), asks it (blocking, aio, bridge), and records (history)
wires, registers, lineages, resources    what is checked; each has tests that show it broken histories
"""
