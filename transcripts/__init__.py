"""A transcript on disk and the context that read it: what the shell and the Composer stand on."""
