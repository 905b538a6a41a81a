"""Train one curve of the ByzShield paper's figure 2 for some steps, and time it.

    python scripts/figure2_curve.py byzshield_q5 outputs/figure2 --data FOLDER

The curves are those of experiment=byzshield/fig02: ALIE, K=25, r=5, b=750, ResNet-18. FOLDER holds
CIFAR-10 as `dataset=cifar10` reads it (cifar-10-batches-py), or train/<class>/* and
test/<class>/* as `dataset=image_folder` does. Seconds are those of the whole command: start, data,
steps and evaluations.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

GOAL_S = 60.0


def main() -> None:
    """Run the program, and print the accuracies and a line of the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curve", help="for example byzshield_q5, detox_q5, median_q5")
    parser.add_argument("output", type=Path, help="the folder of the runs; must be new")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps between evaluations")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=750, help="a multiple of 25")
    given = parser.parse_args()
    if given.output.exists():
        parser.error(f"{given.output} exists: a run that resumes cannot be timed")
    packed = (given.data / "cifar-10-batches-py").is_dir()
    data = ("cifar10",) if packed else ("image_folder", "dataset.augment=crop_flip")
    command = [
        sys.executable, "-m", "byzshield_exp", "experiment=byzshield/fig02",
        f"hydra.sweeper.only=[{given.curve}]", f"dataset={data[0]}", *data[1:],
        f"dataset.root={given.data}", f"device={given.device}", f"network.width={given.width}",
        f"batch_size={given.batch}", f"steps={given.steps}", f"eval_every={given.every}",
        "checkpoint_every=1000000", f"output_dir={given.output}",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    taken = time.perf_counter() - start
    paths = [*given.output.glob("**/summary.json")]
    if done.returncode or len(paths) != 1:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    summary = json.loads(paths[0].read_text())
    lines = paths[0].with_name("metrics.jsonl").read_text().splitlines()
    for record in map(json.loads, lines):
        if "test_accuracy" in record:
            print(f"step {record['step']}: accuracy {record['test_accuracy']:.3f}")
    print(
        f"| figure 2, {given.curve}, {summary['steps']} steps | {taken:.1f} s, "
        f"{summary['seconds_per_step']:.4f} s a step, accuracy "
        f"{summary['final_test_accuracy']:.3f} | < {GOAL_S:.0f} s "
        f"| {'met' if taken < GOAL_S else 'missed'} |"
    )


if __name__ == "__main__":
    main()
