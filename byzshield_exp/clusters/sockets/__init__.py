"""Connections of our own: a run outlives processes that are silent, dead or send nonsense."""
