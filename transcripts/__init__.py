"""A transcript on disk and the context that has read it. The shell and the Composer are built on this."""
