"""Training with gradients: trains the models that ship with the project, and tunes and trains specialists on rows."""
