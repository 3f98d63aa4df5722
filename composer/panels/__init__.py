"""Model, workers, sampling, notices and the status line."""
