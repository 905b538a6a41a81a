"""Attacks computed from all honest rows, against hand-worked values and plain searches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_attacks import Rows, knowledge

from byzshield_exp.aggregators import krum, trimmed_mean
from byzshield_exp.assignments import baseline, mols
from byzshield_exp.attacks import alie, fang_krum, fang_trimmed_mean, min_max, min_sum
from byzshield_exp.binding import bind
from byzshield_exp.distortion import worst_case

CONF = Path(__file__).parents[2] / "conf" / "attack"
Z_5_2 = 0.4307273  # Phi^-1(2/3): K=5, q=2, s=1 of 3 honest workers
LIARS = worst_case(mols(15, 3), 5).workers


def preset(name):
    return bind("attack", yaml.safe_load((CONF / f"{name}.yaml").read_text()), ("knowledge",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alie", 5 + Z_5_2 * math.sqrt(8)),  # all: 1 9 3 5 7
        ("alie_byzshield", 5 + math.sqrt(8)),
        ("alie_byzfl", 5 + 1.5 * 2),  # honest: 3 5 7, whose deviation is 2 with ddof 1
        ("alie_blades", 5 + Z_5_2 * 2),
        ("alie_krum", 5 + Z_5_2 * math.sqrt(8 / 3)),
    ],
)
def test_alie_presets_by_hand(name, expected):
    rows = Rows(torch.tensor([[1.0], [9.0], [3.0], [5.0], [7.0]], dtype=torch.float64))
    forged = preset(name)(knowledge(rows, baseline(5), (0, 1), (0, 1)))
    assert forged.tolist() == [[pytest.approx(expected, abs=1e-6)]] * 2


def test_alie_of_liars_sees_only_their_files():
    rows = Rows(torch.tensor([[1.0], [9.0], [3.0], [5.0], [7.0]], dtype=torch.float64))
    forged = alie(knowledge(rows, baseline(5), (0, 1), (0,)), population="liars")
    assert float(forged) == pytest.approx(5 + Z_5_2 * 4, abs=1e-6)


def test_alie_of_one_message_has_no_deviation():
    seen = knowledge(Rows(torch.tensor([[1.0], [9.0]])), baseline(2), (0,), (0,))
    assert float(alie(seen, z=3.0, ddof=1, population="honest")) == 9
    assert float(alie(seen, z=3.0, ddof=1, population="liars")) == 1


@pytest.mark.parametrize("ddof", [0, 1])
def test_alie_of_the_honest_counts_messages(ddof):
    assignment = mols(15, 3)
    rows = torch.from_numpy(np.random.default_rng(1).standard_normal((25, 20000)))
    honest = [worker for worker in range(15) if worker not in LIARS]
    sent = torch.cat([rows[assignment.files_of_worker[worker]] for worker in honest]).numpy()
    forged = alie(
        knowledge(Rows(rows), assignment, LIARS, (0,)), z=1.5, ddof=ddof, population="honest"
    )
    expected = sent.mean(axis=0) + 1.5 * sent.std(axis=0, ddof=ddof)
    np.testing.assert_allclose(forged[0].numpy(), expected, rtol=1e-10, atol=1e-12)


def sent_by_honest(rows, assignment, liars):
    honest = [worker for worker in range(assignment.num_workers) if worker not in liars]
    return torch.cat([rows[assignment.files_of_worker[worker]] for worker in honest])


def push_of(sent, direction):
    mean = sent.mean(dim=0)
    return {"std": -sent.std(dim=0), "unit": -mean / mean.norm(), "sign": -mean.sign()}[direction]


def bisected(sent, push, is_within):
    """As the authors do, but to the last bit."""
    low, high = 0.0, 1.0
    while is_within(sent.mean(dim=0) + high * push):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if is_within(sent.mean(dim=0) + middle * push) else (low, middle)
    return sent.mean(dim=0) + low * push


@pytest.mark.parametrize("direction", ["std", "unit", "sign"])
@pytest.mark.parametrize(
    ("assignment", "liars"), [(baseline(9), (1, 4)), (mols(15, 3), LIARS)], ids=["r=1", "r=3"]
)
@pytest.mark.parametrize("attack", [min_max, min_sum])
def test_min_max_and_min_sum_are_the_authors_bisection(attack, assignment, liars, direction):
    rng = np.random.default_rng(2)
    rows = torch.from_numpy(rng.standard_normal((assignment.num_files, 20000)) + 0.3)
    rows[3] *= 2  # one far from the others
    sent = sent_by_honest(rows, assignment, liars)
    apart = torch.cdist(sent, sent, compute_mode="donot_use_mm_for_euclid_dist").square()
    if attack is min_max:

        def is_within(forged):
            return (sent - forged).square().sum(dim=1).max() <= apart.max()
    else:

        def is_within(forged):
            return (sent - forged).square().sum() <= apart.sum(dim=1).max()

    expected = bisected(sent, push_of(sent, direction), is_within)
    forged = attack(knowledge(Rows(rows), assignment, liars, (0, 1)), direction=direction)
    torch.testing.assert_close(forged, expected.expand(2, -1), rtol=1e-7, atol=1e-9)
    assert not torch.allclose(forged[0], sent.mean(dim=0))


def test_min_max_by_hand():
    """Honest 0, 2, 4 and 6: mean 3, no farther than 6 from 6, so 0."""
    rows = Rows(torch.tensor([[9.0], [0.0], [2.0], [4.0], [6.0]], dtype=torch.float64))
    seen = knowledge(rows, baseline(5), (0,), (0,))
    for direction in ("std", "unit", "sign"):
        assert float(min_max(seen, direction=direction)) == pytest.approx(0)
    # sums: 36+16+4+0 = 56 from 0; 4 (m - 3)^2 + 20 <= 56 at m = 0
    assert float(min_sum(seen)) == pytest.approx(0)


def krum_bound(honest, count, corrupt, sign):
    """Theorem 1 of Fang et al. with the gradient 0 for the received global model."""
    apart = torch.cdist(honest, honest, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest = apart.sort(dim=1).values[:, 1 : count - corrupt - 1].sum(dim=1).min()
    size = int(sign.abs().sum())
    first = (nearest / ((count - 2 * corrupt - 1) * size)).sqrt()
    return float(first + honest.norm(dim=1).max() / size**0.5)


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
@pytest.mark.parametrize(
    ("assignment", "liars", "num_corrupt"),
    [(baseline(15), (0, 3, 4), 3), (mols(15, 3), LIARS, 8)],
    ids=["r=1", "r=3"],
)
def test_krum_chooses_what_fang_krum_says_it_does(assignment, liars, num_corrupt, shift):
    rng = np.random.default_rng(3)
    rows = torch.from_numpy(rng.standard_normal((assignment.num_files, 20000)) + shift)
    seen = knowledge(Rows(rows), assignment, liars, (liars[0],), num_corrupt=num_corrupt)
    assert len(seen.won_files) == num_corrupt
    forged = fang_krum(seen)[0]
    sign = sent_by_honest(rows, assignment, liars).mean(dim=0).sign()
    size = float(forged.abs().max())
    torch.testing.assert_close(forged, -size * sign)
    honest = rows[[file for file in range(len(rows)) if file not in seen.won_files]]

    def chosen(factor):
        return krum(torch.cat([honest, factor * forged.expand(num_corrupt, -1)]), num_corrupt)

    assert torch.equal(chosen(1.0), forged) is (size >= 1e-5) is (shift < 1)
    bound = krum_bound(honest, len(rows), num_corrupt, sign)
    halvings = math.log2(bound / size)
    assert halvings == pytest.approx(round(halvings), abs=1e-6)
    if halvings > 0.5:
        assert not torch.equal(chosen(2.0), 2 * forged)


def test_fang_krum_gives_up_at_its_threshold():
    """One liar among rows that are equal but for two: nothing else is as near as they are."""
    rows = torch.ones(9, 50, dtype=torch.float64)
    rows[0] = rows[1] = 100
    forged = fang_krum(knowledge(Rows(rows), baseline(9), (0,), (0,)), threshold=0.5)
    assert 0 < float(forged.abs().max()) < 0.5
    with pytest.raises(ValueError, match="threshold=0"):
        fang_krum(knowledge(Rows(rows), baseline(9), (0,), (0,)), threshold=0.0)


def test_fang_trimmed_mean_lies_beyond_the_extremes_against_the_mean():
    columns = [[0.0, 2, 3], [0, -1, 5], [0, -2, -3], [0, 1, -5]]
    rows = Rows(torch.tensor(columns, dtype=torch.float64).T.repeat(1, 500))
    forged = fang_trimmed_mean(knowledge(rows, baseline(3), (0,), (0,)))[0].view(500, 4)
    intervals = torch.tensor([[1.0, 2], [-2, -1], [-2, -1], [1, 2]], dtype=torch.float64)
    assert (forged >= intervals[:, 0]).all()
    assert (forged <= intervals[:, 1]).all()
    spread = forged.amax(dim=0) - forged.amin(dim=0)
    assert (spread > 0.95 * (intervals[:, 1] - intervals[:, 0])).all()
    torch.testing.assert_close(forged.mean(dim=0), intervals.mean(dim=1), rtol=0.05, atol=0)
    with pytest.raises(ValueError, match=r"b=0\.5"):
        fang_trimmed_mean(knowledge(rows, baseline(3), (0,), (0,)), b=0.5)


def test_fang_trimmed_mean_moves_the_trimmed_mean_against_the_gradient():
    rows = torch.from_numpy(np.random.default_rng(4).standard_normal((15, 1000)))
    forged = fang_trimmed_mean(knowledge(Rows(rows), baseline(15), (0, 1, 2), (0, 1, 2)))
    honest = rows[3:]
    shift = trimmed_mean(torch.cat([forged, honest]), 3) - honest.mean(dim=0)
    assert (shift * honest.mean(dim=0) < 0).double().mean() > 0.9
