"""What an operator edits: the default configuration and the shipped sampling sets. Data only."""
