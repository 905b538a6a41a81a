"""Print the README's table: test accuracy on digits with LeNet, K=15, r=3, 300 steps, 3 seeds.

    python scripts/readme_table.py [OUTPUT_DIR]

Does the runs that are missing (39 in all, about 10 minutes on 2 cores), then prints the table.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

SEEDS = (0, 1, 2)
DEFENCES = {
    "baseline, mean": ("approach=baseline", "aggregator=mean"),
    "baseline, median": ("approach=baseline", "aggregator=median"),
    "ByzShield (mols), median": ("approach=mols", "aggregator=median"),
}
ATTACKS = {
    "none": ("attack=none",),
    "reversed gradient, q=3": ("attack=reversed_gradient", "q=3"),
    "ALIE, automatic z, q=2": ("attack=alie", "q=2"),
    "ALIE, automatic z, q=3": ("attack=alie", "q=3"),
    "ALIE, z=1.0, q=2": ("attack=alie", "attack.z=1.0", "q=2"),
    "ALIE, z=1.0, q=3": ("attack=alie", "attack.z=1.0", "q=3"),
}
LEFT_OUT = {("none", "baseline, median")} | {
    (attack, "baseline, mean") for attack in ATTACKS if attack.startswith("ALIE")
}


def accuracies(overrides: tuple[str, ...], output_dir: Path) -> list[float]:
    """Run three seeds in one sweep, and read their summaries."""
    seeds = f"seed={','.join(map(str, SEEDS))}"
    command = [sys.executable, "-m", "byzshield_exp", "-m", *overrides, seeds]
    done = subprocess.run(
        [*command, f"output_dir={output_dir}"], check=True, stdout=subprocess.PIPE, text=True
    )
    folders = [
        line.rpartition(" in ")[2] for line in done.stdout.splitlines() if " steps (" in line
    ]
    summaries = [json.loads(Path(folder, "summary.json").read_text()) for folder in folders]
    return [summary["final_test_accuracy"] for summary in summaries]


def main() -> None:
    """Print the table as Markdown: mean (lowest to highest) over the seeds."""
    output_dir = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/readme_table")
    print(f"| attack | {' | '.join(DEFENCES)} |")
    print("|---|" + "---|" * len(DEFENCES))
    for attack, lies in ATTACKS.items():
        cells = []
        for defence, parts in DEFENCES.items():
            if (attack, defence) in LEFT_OUT:
                cells.append("")
                continue
            found = accuracies((*parts, *lies), output_dir)
            cells.append(f"{mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
        print(f"| {attack} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
