"""``epochs``: in place of ``steps``, and no part of what a run is."""

import pytest
import yaml
from running import summary_of

from byzshield_exp.datasets import Batches

PARTS = ("dataset=synthetic", "network=mlp", "dataset.num_train=60", "batch_size=25", "q=2")


@pytest.mark.parametrize("epochs", [0.1, 0.5, 1, 2, 2.5, 3])
@pytest.mark.parametrize("batch_size", [25, 50, 75])
def test_the_steps_of_epochs_use_every_sample_so_often(epochs, batch_size):
    batches = Batches(60, batch_size, 25, seed=0)
    steps = batches.steps_in(epochs)
    assert (steps - 1) * batch_size < epochs * 60 <= steps * batch_size
    used = [s for step in range(steps) for file in range(25) for s in batches.file(step, file)]
    counts = [used.count(sample) for sample in range(60)]
    assert min(counts) >= int(epochs)


def test_a_float_of_epochs_is_the_number_that_was_typed():
    assert (
        Batches(1000, 100, 25, seed=0).steps_in(0.7) == 7
    )  # 0.7 * 1000 / 100 is above 7 in binary


def test_epochs_become_steps_before_the_run_and_more_of_either_continue_it(cli, tmp_path):
    def run(*length):
        return cli(*PARTS, *length, f"output_dir={tmp_path}")

    code, out, err = run("epochs=1")
    assert code == 0, err
    assert out.splitlines()[0].endswith("batch 25 = 25 x 1, epochs=1: 3 steps")
    (folder,) = tmp_path.iterdir()
    assert "epochs" not in folder.name
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["epochs"], config["steps"]) == (1, 3)
    first = summary_of(tmp_path)
    assert first["steps"] == 3

    code, out, err = run("steps=3")
    assert (code, f"finished: {folder}" in out) == (0, True), err
    code, out, err = run("epochs=2")
    assert (code, "resumes after step 3" in out) == (0, True), err
    assert summary_of(tmp_path)["steps"] == 5
    code, _, err = run("epochs=1")
    assert (code, "steps=3: " in err, "has done 5 steps already" in err) == (2, True, True)


def test_epochs_replace_the_steps_of_an_experiment(cli, tmp_path):
    code, out, err = cli("experiment=mnist_lenet", "dataset=digits", "epochs=1", "plan=true",
                         f"output_dir={tmp_path}")  # fmt: skip
    assert code == 0, err
    assert "epochs=1: " in out
