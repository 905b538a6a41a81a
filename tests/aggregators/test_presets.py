"""The conventions of other libraries, as named choices, against hand-worked values."""

from pathlib import Path

import pytest
import torch
import yaml

from byzshield_exp.binding import bind

CONF = Path(__file__).parents[2] / "conf" / "aggregator"
LINE = [0.0, 3.0, 4.0, 5.0, 20.0, 21.0]  # n = 6


def weiszfeld(rows, start, nu, rounds):
    point = start
    for _ in range(rounds):
        inverse = [1 / max(nu, abs(row - point)) for row in rows]
        point = sum(i * row for i, row in zip(inverse, rows, strict=True)) / sum(inverse)
    return point


CASES = {
    "krum": (LINE, 3.0),  # three nearest: 50 14 18 30 (20 and 21 are far)
    "krum_byzfl": (LINE, 5.0),  # four nearest: 450 303 274 255 771 870
    "multi_krum": (LINE, 4.0),  # n-c-2 = 3 rows: 3 4 5
    "multi_krum_byzfl": (LINE, 32 / 5),  # n-c = 5 rows: all but 21
    "multi_krum_krum": (LINE, 3.0),  # n-2c-3 = 1 row
    "multi_krum_garfield": (LINE, 4.0),  # four nearest, not squared: 32 23 22 23 49 52: 4 3 5
    "median": ([1.0, 2.0, 9.0, 4.0], 3.0),
    "median_lower": ([1.0, 2.0, 9.0, 4.0], 2.0),
    # scores 34.25 18.25 12.25 11.25 21 29.25: 3 2 1 4.5 at once, their middle two
    "bulyan_byzshield": ([0.0, 1.0, 2.0, 3.0, 4.5, 5.0, 1000.0], 2.5),
    # one by one (test_aggregators.py)
    "bulyan": ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1000.0], 3.0),
    "geometric_median_rfa": ([1.0, 2.0, 4.0], weiszfeld([1.0, 2.0, 4.0], 7 / 3, 0.1, 3)),
    "geometric_median_byzfl": ([1.0, 2.0, 4.0], weiszfeld([1.0, 2.0, 4.0], 0.0, 0.1, 3)),
    "centered_clip_byzfl": ([0.0, 1.0, 1000.0], 101 / 3),  # from zero, radius 100
}


def rule_of(name):
    choice = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return bind("aggregator", choice, ("rows", "num_corrupt", "generator", "previous"))


@pytest.mark.parametrize("name", CASES)
def test_a_named_convention_by_hand(name):
    rows, expected = CASES[name]
    column = torch.tensor(rows, dtype=torch.float64)[:, None]
    assert rule_of(name)(column, 1).tolist() == pytest.approx([expected])


def test_every_named_convention_is_tested():
    libraries = ("byzshield", "byzfl", "blades", "krum", "garfield", "rfa", "lower")
    named = {path.stem for path in CONF.glob("*_*.yaml") if path.stem.endswith(libraries)}
    assert named - {"multi_krum", "krum"} <= set(CASES)
