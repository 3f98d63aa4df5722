"""Runs code where it can do no harm: with bubblewrap if it works here, else with Landlock."""
