"""WHAT A RUN LEAVES: its folder, records, checkpoints and status."""

from byzshield_exp.results.loading import Runs, load

__all__ = ["Runs", "load"]
