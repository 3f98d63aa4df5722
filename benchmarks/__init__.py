"""Speed, measured side by side: each figure is a ratio of two things taken in the same run (`make bench`).

One file per group of figures; `measure` takes the samples, `report` writes them down. `serving`, `peers`, `bare`
and `bare_llama` are the processes that are measured: everything served by `ssmprov up`, sockets without ssmprov, models
without it.
"""
