"""The table at the end of a sweep."""

from byzshield_exp.launch.overview import overview


def row(approach, seed, state, accuracy=None, error="", **more):
    settings = {"approach": approach, "q": 2, "steps": [4], "seed": seed}
    took = None if state == "new" else 1.0 + seed
    return settings | {
        "state": state, "test_accuracy": accuracy, "seconds": took, "error": error,
    } | more  # fmt: skip


def test_seeds_share_a_line_and_every_run_is_counted():
    rows = [
        row("mols", 0, "done", 0.98), row("mols", 1, "done", 0.96),
        row("detox", 0, "diverged", 0.1), row("detox", 1, "failed", error="out of memory"),
        row("detox", 2, "failed", error="killed"), row("baseline", 0, "new"),
    ]  # fmt: skip
    assert overview(rows, ["approach", "q", "steps", "seed"]) == [
        "approach  test accuracy              state                 seconds a run",
        "mols      0.9700 (0.9600 to 0.9800)  2 done                1.5",
        "detox     0.1000                     1 diverged, 2 failed  2.0",
        "baseline  -                          1 new                 -",
        "best test accuracy: 0.9700 with approach=mols",
        "2 of 6 done, 1 diverged, 2 failed (out of memory, and 1 more), 1 new",
    ]


def test_each_accuracy_has_its_column_and_its_best():
    held_out = row("detox", 0, "done", validation_accuracy=0.9)
    table = overview(
        [row("mols", 0, "done", 0.8), row("mds", 0, "done", 0.8), held_out], ["approach"]
    )
    assert table[0] == "approach  test accuracy  validation accuracy  state   seconds a run"
    assert table[4:] == [
        "best test accuracy: 0.8000 with approach=mols, and 1 more with the same",
        "best validation accuracy: 0.9000 with approach=detox",
        "3 of 3 done",
    ]


def test_one_setting_has_no_best():
    assert overview([row("mols", 0, "done", 0.5)], ["approach", "seed"]) == [
        "test accuracy  state   seconds a run",
        "0.5000         1 done  1.0",
        "1 of 1 done",
    ]


def test_the_best_is_that_of_the_worst_attack():
    def line(*accuracies, varied=("approach", "attack", "q")):
        points = [("mols", "alie"), ("mols", "ipm"), ("detox", "alie"), ("detox", "ipm")]
        rows = [
            row(approach, 0, "failed" if value is None else "done", value, attack=attack)
            for (approach, attack), value in zip(points, accuracies, strict=True)
        ]
        return [text for text in overview(rows, varied) if " with " in text]

    assert line(0.9, 0.5, 0.7, 0.6) == [
        "best test accuracy in the worst case over attack: 0.6000 with approach=detox"
    ]
    assert line(0.9, None, 0.3, 0.2) == [
        "best test accuracy in the worst case over attack: 0.2000 with approach=detox"
    ]
    assert line(None, 0.9, None, 0.2) == []
    attacks = line(0.9, 0.5, 0.9, 0.5, varied=("attack",))
    assert attacks == ["lowest test accuracy: 0.5000 with attack=ipm"]
