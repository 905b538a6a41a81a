"""At which steps the liars lie."""

import json

import pytest

from byzshield_exp.attacks import TimedAdversary, Timing
from byzshield_exp.errors import ConfigError


@pytest.mark.parametrize("start", [1, 2, 5, 101])
@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("stop", [None, 3, 107])
def test_the_steps_are_those_of_the_rule(start, every, stop):
    expected = [
        number - 1
        for number in range(1, 200)
        if number >= start and number % every == 0 and (stop is None or number < stop)
    ]
    timing = Timing(start, every, stop)
    assert [step for step in range(199) if timing.covers(step)] == expected
    found = [step for step, _ in zip(timing.steps(), range(len(expected)), strict=False)]
    assert found == expected
    for steps in (0, 1, 4, 100, 105, 199):
        last = max((step for step in expected if step < steps), default=None)
        assert timing.last_before(steps) == last


def test_nobody_lies_at_other_steps():
    adversary = TimedAdversary(lambda step: (step, step + 1), Timing(start=101, every=5))
    assert [adversary(step) for step in (100, 103, 104, 105)] == [(), (), (104, 105), ()]
    assert adversary.first_sets(2) == [(104, 105), (109, 110)]
    assert adversary.last_set(104) == ()
    assert adversary.last_set(112) == (109, 110)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"start": 0}, "adversary.start=0 must be a whole number from 1"),
        ({"every": True}, "adversary.every=True must be a whole number from 1"),
        ({"stop": 1.5}, "adversary.stop=1.5 must be a whole number from 1 or null"),
        (
            {"start": 6, "every": 5, "stop": 10},
            "adversary.start=6 adversary.every=5 adversary.stop=10: there is no such step",
        ),
    ],
)
def test_what_is_out_of_range_is_refused(choice, said):
    with pytest.raises(ConfigError) as raised:
        Timing.of(choice)
    assert str(raised.value) == said


@pytest.mark.slow
def test_a_run_lies_at_its_steps_and_is_honest_before(run, cli, tmp_path):
    timing = ("adversary.start=3", "adversary.every=2", "adversary.stop=7")
    attack = ("attack=reversed_gradient", "q=5")
    run(*attack, *timing, "steps=8", folder=tmp_path / "timed")
    (path,) = (tmp_path / "timed").glob("*/metrics.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["step"] for one in records if one["byzantine"]] == [4, 6]
    assert {len(one["byzantine"]) for one in records} == {0, 5}
    honest = run("attack=none", "q=5", "steps=3", folder=tmp_path / "honest")
    before = run(*attack, *timing, "steps=3", folder=tmp_path / "before")
    assert before["parameters_sha256"] == honest["parameters_sha256"]
    assert before["byzantine"] == []
    assert run(*attack, *timing, "steps=8", folder=tmp_path / "timed")["byzantine"] != []


def test_an_attack_after_the_run_is_noted(cli, tmp_path):
    code, _, err = cli(
        "dataset=synthetic", "network=mlp", "network.hidden=[4]", "steps=2",
        "adversary.start=9", "adversary.every=5", f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 0
    said = "nobody lies in steps=2: with adversary.start=9 adversary.every=5 the first step is 10"
    assert said in err
