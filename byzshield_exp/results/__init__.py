"""WHAT A RUN LEAVES: its folder, records, checkpoints and status."""
