"""Connections of our own: a run outlives silent, dead and nonsense-talking processes."""
