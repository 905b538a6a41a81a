"""``byzshield doctor``: whether this machine, and what it reaches, can do runs."""

from byzshield_exp.doctor.command import main

__all__ = ["main"]
