"""What a peer sends, in bytes: counted by hand from the messages of a run."""

import json

import pytest
from disturbing import processes
from running import SMALL, run_program, summary_of

PEERS = (*SMALL, "approach=btard", "q=0", "attack=none", "profile=metrics", "eval_every=1000")


def sizes_of(size, count):
    return [(part + 1) * size // count - part * size // count for part in range(count)]


@pytest.mark.slow
def test_a_peer_sends_two_vectors_and_few_bytes(tmp_path):
    count, widths, control = 7, (16, 64), {}
    for hidden in widths:
        folder = tmp_path / str(hidden)
        done = run_program(
            *PEERS, f"K={count}", f"batch_size={count * 2}", "protocol.validators=0",
            f"network.hidden=[{hidden}]", *processes(count + 1), f"output_dir={folder}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        size = summary_of(folder)["num_parameters"]
        parts = sizes_of(size, count)
        (path,) = folder.glob("*/metrics.jsonl")
        record = json.loads(path.read_text().splitlines()[-1])
        # Each other peer's part of the row; the own aggregate to each other peer and to rank 0.
        exact = [4 * (size - part) + 4 * part * count for part in parts]
        sent = record["profile"]["bytes_out"][1:]
        control[hidden] = [there - data for there, data in zip(sent, exact, strict=True)]
        assert record["data_bytes"] == sum(exact) - 4 * size
        received = record["bytes_in"] - 4 * size
        assert 0 < received < 2 * sum(control[hidden])
    assert all(
        control[hidden] == control[16] for hidden in widths
    )  # it grows with the peers, not with the parameters
    posted = record["control_bytes"] / count
    assert posted <= min(control[16]) <= posted + 1000 + 100 * count
