"""FETCH THE DATA: ``python -m byzshield_exp.prepare``; a run itself downloads nothing."""

from byzshield_exp.prepare.folder import prepare

__all__ = ["prepare"]
