"""One process for each worker: a socket thread, a batching scheduler, turn logic, the checkpoint store, runtimes."""
