"""Sweeps: small points, rules and attacks that break, and what is left in the folders."""

import csv
import json

from running import SMALL

SHORT = (*SMALL, "checkpoint_every=2")


CRASHING = """
import os, signal
from pathlib import Path

def forge(knowledge, how: str = "fine", z: float | None = None):
    is_due = knowledge.step == 2 and not Path(__file__).with_name("mended").exists()
    if how == "raise" and is_due:
        raise ArithmeticError("a rule of the user's own broke")
    if how == "die" and is_due:
        os.kill(os.getpid(), signal.SIGKILL)
    return knowledge.own_rows()
"""


def manifest(folder):
    """The rows of ``sweep.csv`` by name; of an impossible point by its error."""
    with (folder / "sweep.csv").open() as file:
        return {row["name"] or row["error"]: row for row in csv.DictReader(file)}


def hashes(folder):
    """The parameters of all finished runs."""
    return {
        path.parent.name: json.loads(path.read_text())["parameters_sha256"]
        for path in folder.glob("*/summary.json")
    }


def said(out):
    """The lines, but for how far the check is, which is told on a slow machine."""
    return [line for line in out.splitlines() if not line.startswith("checked ")]


def states(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/status.json")}


RULES = """
def rule(rows, num_corrupt: int, how: str = "fine"):
    if how == "late" and rows.shape[1] > 2:
        raise ValueError("a ValueError of the user's")
    if how == "sigterm":
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "SystemExit":
        raise SystemExit(0)
    if how not in ("fine", "late", "sigterm"):
        raise {"RuntimeError": RuntimeError, "KeyError": KeyError}[how]("several lines\\nof it")
    return rows.mean(dim=0)
"""
