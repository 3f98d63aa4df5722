"""Model mathematics, free of any service."""
