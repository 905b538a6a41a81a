"""Get the winning rows, and accept none that differs from its digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.clusters.inbox import Inbox, Replica
from byzshield_exp.clusters.transport import Fetched, Transport
from byzshield_exp.rows.digests import row_digest
from byzshield_exp.rows.finite import is_finite

Classes = Mapping[int, Sequence[int]]  # by file, ascending, the places of its winning class


@dataclass(eq=False)
class Delivery:
    """The winning rows of a step.

    Attributes:
        rows: by file, ascending; a file is missing if nobody of its class sends the row.
        caught: workers and files whose row was not what the digest said.
    """

    rows: dict[int, Tensor] = field(default_factory=dict)
    caught: set[tuple[int, int]] = field(default_factory=set)


def deliver(transport: Transport, inbox: Inbox, classes: Classes, step: int) -> Delivery:
    """Get the row of each winning class; where digests were voted, fetch it and compare.

    A worker whose row is another one is caught, and the next one of its class is asked.
    """
    if inbox.finite is None:
        rows = {file: inbox.replicas[file][places[0]] for file, places in classes.items()}
        return Delivery({file: row for file, row in rows.items() if isinstance(row, Tensor)})
    delivery, holders = Delivery(), transport.seats.assignment.workers_of_file.tolist()
    wanted = {file: [holders[file][at] for at in places] for file, places in classes.items()}
    refused: set[int] = set()
    while wanted:
        answers = transport.fetch(wanted, refused)
        refused = set()
        for answer in answers:
            workers = wanted[answer.file]
            if answer.worker is None:
                workers.clear()
                continue
            workers.remove(answer.worker)
            place = transport.seats.place_of[answer.worker, answer.file]
            said, row = inbox.replicas[answer.file][place], answer.row
            if row is not None and _is_true(row, answer, said, step):
                delivery.rows[answer.file] = row
                workers.clear()
            elif row is not None or answer.is_false:
                refused.add(answer.worker)
                delivery.caught.add((answer.worker, answer.file))
                name = transport.seats.name(transport.seats.rank_of[answer.worker])
                transport.events.append(
                    f"step {step + 1}: worker {answer.worker} ({name}) sent another row for file "
                    f"{answer.file} than its digest says: caught"
                )
        wanted = {file: workers for file, workers in wanted.items() if workers}
    transport.fetch({}, refused)
    return Delivery(dict(sorted(delivery.rows.items())), delivery.caught)


def _is_true(row: Tensor, answer: Fetched, said: Replica, step: int) -> bool:
    """Whether a row is what its digest said before the vote."""
    finite = is_finite(row)
    digest = answer.digest or row_digest(row, step, answer.file, finite)
    return isinstance(said, bytes) and said == digest + bytes([finite])


def in_first_rows(rows: Mapping[int, Tensor], table: Float[Tensor, "f d"]) -> Float[Tensor, "n d"]:
    """Move rows to the beginning of a table, in the order of their files.

    Args:
        rows: by file, ascending; each in its own place of ``table``, elsewhere, or in another's
            place (a lie may be another file's true row).
        table: is overwritten.
    """
    mine = table.untyped_storage().data_ptr()
    moved = {
        file: row.clone() if row.untyped_storage().data_ptr() == mine else row
        for file, row in rows.items()
        if row.data_ptr() != table[file].data_ptr()
    }
    for file, row in moved.items():
        table[file].copy_(row)
    for place, file in enumerate(rows):
        if place != file:
            table[place].copy_(table[file])
    return table[: len(rows)]
