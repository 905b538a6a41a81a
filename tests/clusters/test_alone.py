"""One process plays everybody."""

import pytest
import torch
from socket_table import MOLS, STATEMENT

from byzshield_exp.clusters import AloneChannel, Options, Seats, deliver, in_first_rows
from byzshield_exp.rows.message import Message


@pytest.mark.parametrize("reads_digests", [False, True])
def test_winners_are_moved_without_being_mixed_up(reads_digests):
    table = torch.arange(100.0).view(25, 4)
    true = table.clone()
    alone = AloneChannel().open(Seats(MOLS), Options(reads_digests), table)
    alone.publish(0, torch.zeros(4))
    workers = MOLS.workers_of_file.tolist()
    for file in range(25):
        copied = {3: 4, 4: 3}.get(file, file)  # two lies are other files' true rows
        for worker in workers[file]:
            alone.send(0, worker, file, Message(table[copied], 4, 0.0))
    classes = {file: [0, 1, 2] for file in range(25) if file != 1}
    delivery = deliver(alone, alone.collect(0, STATEMENT, ()), classes, 0)
    rows, files = in_first_rows(delivery.rows, table), list(delivery.rows)
    assert files == list(classes)
    assert not delivery.caught
    expected = true.clone()
    expected[[3, 4]] = true[[4, 3]]
    assert torch.equal(rows, expected[files])
