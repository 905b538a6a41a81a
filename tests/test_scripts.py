"""The scripts that check a GPU: what they do with what they find, without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rented_hosts import shellcheck

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import profile_step  # noqa: E402

PARTS = (
    "tests", "bench_float32", "bench_server", "figure2_byzshield", "profile", "figure2_detox",
    "figure2_median",
)  # fmt: skip


def event(category, name, start, duration, **more):
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": duration, **more}


STEPS = [event("user_annotation", f"ProfilerStep#{n}", 1000.0 * n, 1000.0) for n in (2, 3)]


def test_the_profile_of_a_trace_worked_by_hand():
    """Two steps of 1 ms: kernels at 0-300, 200-600 (other stream), 1500-1700 and one before."""
    on_gpu = [
        event("kernel", "multiply", 1500.0, 400.0),
        event("kernel", "multiply", 2000.0, 300.0),
        event("kernel", "add", 2200.0, 400.0),
        event("gpu_memcpy", "copy", 3500.0, 200.0),
    ]
    called = [
        event("cuda_runtime", "cudaLaunchKernel", 2000.0, 5.0),
        event("cuda_runtime", "cudaLaunchKernel", 2100.0, 5.0),
        event("cuda_driver", "cuLaunchKernelEx", 2110.0, 5.0),
        event("cuda_runtime", "cudaStreamSynchronize", 2900.0, 5.0),
        event("cuda_runtime", "cudaStreamSynchronize", 100.0, 5.0),
    ]
    host = [event("cpu_op", "aten::mul", 2000.0, 1900.0, tid=1)]
    head, _, *lines = profile_step.summarised([*STEPS, *host, *called, *on_gpu])
    assert head == "1.0 ms, 60% of it idle, 2 kernels and copies, 2 launches, 0 waits"
    table, gaps = lines[:3], lines[4:]
    assert [line.split() for line in table] == [
        ["0.20", "20.0%", "0.5", "add"],
        ["0.15", "15.0%", "0.5", "multiply"],
        ["0.10", "10.0%", "0.5", "copy"],
    ]
    assert [gap.split(maxsplit=1) for gap in gaps] == [
        ["0.90", "add | copy"],
        ["0.30", "copy | end"],
    ]


def test_on_a_cpu_the_outermost_operations_stand_for_kernels():
    operations = [
        event("cpu_op", "outer", 2000.0, 500.0, tid=1),
        event("cpu_op", "inner", 2000.0, 400.0, tid=1),
        event("cpu_op", "last", 2600.0, 400.0, tid=1),
        event("cpu_op", "other thread", 2900.0, 200.0, tid=2),
    ]
    head, _, *lines = profile_step.summarised([*STEPS, *operations])
    assert "50% of it idle, 2 kernels" in head
    assert [line.split(maxsplit=3)[3] for line in lines[:3]] == ["outer", "last", "other thread"]
    with pytest.raises(ValueError, match="no whole step"):
        profile_step.summarised(operations)


def check_gpu(*arguments, **environment):
    return subprocess.run(
        [SCRIPTS / "check_gpu.sh", *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHON": sys.executable, "COMMIT": "abc", **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_all_of_it_is_in_the_table(tmp_path):
    data = tmp_path / "data"
    (data / "cifar-10-batches-py").mkdir(parents=True)
    for part in PARTS:
        text = f"on a card\n| {part} | 1 s | < 2 s | met |\n== {part}: exit 0 after 1 s\n"
        (tmp_path / f"{part}.txt").write_text(text)
    passed = "=========== 3 passed, 2 skipped in 1.05s ===========\n"
    (tmp_path / "tests.txt").write_text("on a card\n" + passed)
    done = check_gpu("--device", "cpu", tmp_path, BYZSHIELD_DATA=str(data))
    assert done.returncode == 0, done.stderr
    rows = ["| tests/gpu | 3 passed, 2 skipped in 1.05s | no failure | met |"]
    rows += [f"| {part} | 1 s | < 2 s | met |" for part in PARTS[1:]]
    assert done.stdout.splitlines()[1:] == [
        "on a card", "", "| what | figure | goal | |", "|---|---|---|---|", *rows,
    ]  # fmt: skip

    (tmp_path / "tests.txt").unlink()
    (tmp_path / "tests.part").write_text("a PASSED [ 1%]\nb FAILED [ 2%]\n")
    (tmp_path / "profile.txt").unlink()
    done = check_gpu("--device", "cpu", tmp_path, BYZSHIELD_DATA=str(tmp_path), LIMIT_S="0")
    assert done.returncode == 1
    rows = [line for line in done.stdout.splitlines() if "met" not in line][5:]
    assert rows == [
        "| tests/gpu | 1 passed, 1 failed, then was interrupted | no failure | missed |",
        "| profile | not done: no time was left | | |",
        "| figure 2 | skipped: BYZSHIELD_DATA has no CIFAR-10 | | |",
    ]


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_line(tmp_path):
    done = check_gpu(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "finds no GPU for torch" in line
    assert check_gpu("--device", "tpu", tmp_path).stderr == "check_gpu: --device tpu: cuda or cpu\n"


def test_the_shell_scripts_pass_shellcheck():
    program = shellcheck()
    if program is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([program, *SCRIPTS.glob("*.sh")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
