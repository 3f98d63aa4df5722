"""Speed, measured side by side: each figure is a ratio of two things taken in the same run (`make bench`).

One file per group of figures; `measure` takes the samples, `report` writes them down. `serving`, `peers` and `bare`
are the processes that are measured: everything served by `ssmprov up`, sockets without ssmprov, a model without it.
"""
