"""`make demo`: contexts being served, from end to end, on the embedded model. It ends by itself."""
