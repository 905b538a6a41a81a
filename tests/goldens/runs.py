"""Short runs that together use every part of the program, and what they end with, as JSON.

    python tests/goldens/runs.py OUT.json                 all runs
    python tests/goldens/runs.py OUT.json NAME NAME ...   some of them
    python tests/goldens/runs.py tests/goldens/table.json --write [NAME ...]   into the table

It needs nothing of the tree but ``python -m byzshield_exp``, so that it can do the runs of another
commit too: PYTHONPATH decides whose code runs.
"""

import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

TABLE = Path(__file__).with_name("table.json")
KEPT = ("parameters_sha256", "buffers_sha256", "num_corrupt")
SHORT = "dataset=synthetic steps=3 eval_every=3"
SMALL = f"{SHORT} network=mlp network.hidden=[16]"
FEW = "batch_size=20 K=5 q=1 approach=baseline steps=2 eval_every=2 dataset=synthetic"  # 4 a file
BASELINE = f"{SMALL} approach=baseline q=2"
RGB = "dataset.channels=3 dataset.size=32 dataset.num_train=40 dataset.num_test=20"
FOUR = "cluster=processes cluster.num_processes=4"

# Name -> overrides. "|" separates the parts of a run that is resumed.
RUNS = {
    # placements, with a rule and an attack each
    "mols": f"{SMALL} approach=mols attack=alie aggregator=median",
    "mols_gf4": f"{SMALL} K=12 batch_size=160 aggregator=krum attack=reversed_gradient",
    "mols_even": f"{SMALL} K=20 r=4 q=3 aggregator=meamed attack=foe",
    "ramanujan_one": f"{SMALL} approach=ramanujan_one aggregator=multi_krum attack=min_max",
    "ramanujan_two": f"{SMALL} approach=ramanujan_two K=25 r=5 q=5 aggregator=bulyan "
    "attack=min_sum",
    "detox": f"{SMALL} approach=detox attack=constant adversary=one_per_group",
    "maj_vote": f"{SMALL} approach=maj_vote attack=sign_flip adversary=whole_group",
    "groups": f"{SMALL} approach=fractional_repetition K=21 q=4 aggregator=phocas attack=ipm",
    "baseline": f"{BASELINE} aggregator=sign_majority attack=gaussian",
    "affine_plane": f"{SMALL} approach=affine_plane K=9 q=2 aggregator=mda attack=infinity",
    "projective_plane": f"{SMALL} approach=projective_plane K=7 q=2 aggregator=cge "
    "attack=random_direction",
    "steiner": f"{SMALL} approach=steiner K=7 q=2 aggregator=smea attack=label_flip",
    "subsets": f"{SMALL} approach=subsets K=6 q=2 aggregator=caf attack=label_shuffle",
    "random": f"{SMALL} approach=random aggregator=dnc attack=mimic attack.warmup=2",
    "custom": f"{SMALL} approach=custom approach.path=placement.csv K=6 q=2 batch_size=80 "
    "aggregator=sign_guard attack=delayed_gradient attack.delay=1",
    # the rest of the rules and attacks
    "centered_clip": f"{BASELINE} aggregator=centered_clip attack=fang_krum",
    "centered_clip_byzfl": f"{BASELINE} aggregator=centered_clip_byzfl attack=zero "
    "pre_aggregator=static_clip",
    "geometric_median": f"{BASELINE} aggregator=geometric_median attack=fang_trimmed_mean",
    "geometric_median_rfa": f"{BASELINE} aggregator=geometric_median_rfa attack=alie_blades",
    "geometric_median_byzfl": f"{SMALL} aggregator=geometric_median_byzfl "
    "attack=gaussian_noise pre_aggregator=bucketing",
    "monna": f"{SMALL} aggregator=monna attack=scalar_noise",
    "krum_byzfl": f"{BASELINE} aggregator=krum_byzfl attack=alie_byzfl",
    "multi_krum_garfield": f"{BASELINE} aggregator=multi_krum_garfield attack=alie_paper",
    "bulyan_byzshield": f"{BASELINE} aggregator=bulyan_byzshield attack=alie_byzshield",
    "multi_krum_byzfl": f"{BASELINE} aggregator=multi_krum_byzfl attack=alie_krum",
    "multi_krum_krum": f"{BASELINE} aggregator=multi_krum_krum attack=none",
    "median_lower": f"{SMALL} aggregator=median_lower attack=majorities_only",
    "trimmed_mean": f"{SMALL} aggregator=trimmed_mean attack=ipm_optimised "
    "pre_aggregator=[arc,nnm]",
    "nnm": f"{SMALL} aggregator=krum attack=alie_optimised pre_aggregator=nnm",
    "fixed_disagreement": f"{SMALL} K=20 r=4 q=3 attack=fixed_disagreement aggregator=mean",
    "not_a_number": f"{SMALL} attack=not_a_number",
    # adversaries
    "adversary_random": f"{SMALL} adversary=random",
    "adversary_fixed_random": f"{SMALL} adversary=fixed_random",
    "adversary_explicit": f"{SMALL} adversary=explicit adversary.workers=[0,5,10]",
    "adversary_none": f"{SMALL} adversary=none",
    # votes
    "vote_digest": f"{SMALL} vote=digest attack=reversed_gradient",
    "vote_tolerant": f"{SMALL} vote=tolerant attack=reversed_gradient",
    "vote_majority": f"{SMALL} vote=majority worker_momentum=0.9",
    # networks
    "lenet": "steps=2 eval_every=2",
    "fc": "network=fc network.sigmoid=true steps=2 eval_every=2",
    "l46_net": f"{SHORT} network=l46_net dataset.size=16",
    "resnet18_narrow": f"{FEW} {RGB} network=resnet18 network.width=4 poison_statistics=true",
    "resnet20": f"{FEW} {RGB} network=resnet20 network.width=4 network.norm=group",
    "resnet50": f"{FEW} {RGB} network=resnet50 network.width=4",
    "vgg11": f"{FEW} {RGB} network=vgg11 network.width=4",
    "densenet121": f"{FEW} {RGB} network=densenet121 network.growth=4",
    "wrn": f"{FEW} {RGB} network=wrn network.depth=10 network.width=1 precision=bf16",
    "vit": f"{FEW} {RGB} network=vit network.dim=16 network.depth=2 network.heads=2",
    "alexnet": f"{FEW} {RGB} network=alexnet K=3 batch_size=6",
    "augment": f"{FEW} dataset=npz dataset.root=. dataset.file=own.npz dataset.augment=crop_flip "
    "dataset.num_validation=5 network=lenet",
    # resumed, with everything that outlives a step
    "resume": f"{SHORT} approach=baseline q=2 network=l46_net dataset.size=16 worker_momentum=0.5 "
    "aggregator=centered_clip attack=mimic attack.warmup=2 steps=2 | steps=5",
    # several processes
    "processes": f"{SMALL} {FOUR} attack=alie",
    "processes_batch_norm": f"{FEW} {RGB} {FOUR} vote=majority cluster.majority_of=present "
    "network=resnet18 network.width=4 attack=reversed_gradient",
    "torchrun": f"{SMALL} attack=delayed_gradient attack.delay=1 vote=tolerant",
    # without a server
    "peers": f"{SMALL} approach=btard K=7 q=2 batch_size=28 attack=sign_flip adversary.start=2 "
    "cheat=covered_aggregate protocol.projections=2",
}


def here() -> str:
    """What the bits depend on beside the code: torch's release and the processor."""
    import torch

    fields = dict.fromkeys(("vendor_id", "cpu family", "model"), "?")
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in fields:
            fields[name.strip()] = value.strip()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__.split('+')[0]}, {capability}, {' '.join(fields.values())}"


def do(name: str, folder: Path) -> dict[str, object]:
    """Do one run; its parts one after the other."""
    overrides: list[str] = []
    for part in RUNS[name].split("|"):
        overrides += [*part.split(), "output_dir=out"]
        one_each = list({given.partition("=")[0]: given for given in overrides}.values())
        (_in_torchrun if name == "torchrun" else _in_this_process)(one_each)
    (summary,) = folder.glob("out/*/summary.json")
    said = json.loads(summary.read_text())
    return {key: said[key] for key in KEPT}


def _in_this_process(overrides: list[str]) -> None:
    from byzshield_exp.__main__ import main

    sys.argv = ["byzshield", "run", *overrides]
    said = io.StringIO()
    code: object = 0
    try:
        with redirect_stdout(said), redirect_stderr(said):
            main()
    except SystemExit as end:
        code = end.code
    if code not in (0, None):
        raise SystemExit(f"{' '.join(overrides)}: exit code {code}\n{said.getvalue()}")


def _in_torchrun(overrides: list[str]) -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3")
    command = [sys.executable, *launch, "-m", "byzshield_exp", *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=240)


def do_all(names: list[str]) -> dict[str, dict[str, object]]:
    """Do runs in a folder that is thrown away."""
    home, results = Path.cwd(), {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                _write_inputs()
                results[name] = do(name, Path(folder))
            finally:
                os.chdir(home)
    return results


def _write_inputs() -> None:
    """A placement of one's own (K=6, r=3, f=4), and pictures of one's own."""
    import numpy as np

    held = [(0, 1, 2), (3, 4, 5), (0, 3, 1), (4, 2, 5)]
    matrix = [[int(worker in of_file) for of_file in held] for worker in range(6)]
    with open("placement.csv", "w", newline="") as file:
        csv.writer(file).writerows(matrix)
    pictures = random.Random(0)
    arrays = {}
    for part, count in (("train", 60), ("test", 20)):
        pixels = pictures.randbytes(count * 3 * 32 * 32)
        arrays[f"{part}_images"] = np.frombuffer(pixels, np.uint8).reshape(count, 3, 32, 32)
        arrays[f"{part}_labels"] = np.arange(count) % 10
    np.savez("own.npz", **arrays)


def main(arguments: list[str]) -> None:
    """See above."""
    out = Path(arguments[0]).absolute()
    names = [name for name in arguments[1:] if name != "--write"] or list(RUNS)
    results = do_all([name for name in names if name in RUNS])  # this tree may lack newer ones
    if "--write" in arguments:
        table = json.loads(out.read_text()) if out.exists() else {}
        table.setdefault(here(), {}).update(results)
        results = table
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
