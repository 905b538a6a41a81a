"""Where to lie under redundancy: wrappers that forge some files and are honest elsewhere."""

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.assignments import Assignment
from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge, won_files

_FILES = "fixed_disagreement"


@attack_traits(targets=won_files)
def majorities_only(knowledge: Knowledge, attack: Callable[..., Tensor]) -> Float[Tensor, "m d"]:
    """The attack on the files that the liars win, the truth elsewhere: no lie is wasted.

    Formula: row = attack(f) for the files f that the liars win, g_f elsewhere.

    Knows: what the wrapped attack knows, and the placement.

    Args:
        knowledge: what the attacker knows.
        attack: another attack, ``forge(knowledge) -> rows``.

    Source: ATT-3 ("only_majorities") of the Aspis+ code, Konstantinidis and Ramamoorthy,
    IEEE/ACM Transactions on Networking 2023.
    """
    return _lie_on(won_files(knowledge.assignment, knowledge.liars), knowledge, attack)


def disagreement_set(assignment: Assignment, liars: tuple[int, ...]) -> tuple[int, ...]:
    """As many honest workers as there are liars, chosen so that these win many files.

    Greedy: of the files that the liars win, the one that needs fewest new members is added next
    (of equal ones, the lowest number) while there is room. The lowest-numbered honest workers fill
    the rest. Aspis needs no choice: in its placement all sets are equivalent.
    """
    chosen: set[int] = set()
    missing = {
        file: set(assignment.workers_of_file[file].tolist()) - set(liars)
        for file in won_files(assignment, liars)
    }
    while missing:
        file = min(missing, key=lambda one: (len(missing[one] - chosen), one))
        if len(chosen | missing[file]) > len(liars):
            break
        chosen |= missing.pop(file)
    others = [w for w in range(assignment.num_workers) if w not in chosen and w not in liars]
    return tuple(sorted([*chosen, *others[: len(liars) - len(chosen)]]))


def disagreement_files(assignment: Assignment, liars: tuple[int, ...]) -> tuple[int, ...]:
    """The files that the liars win and that only they and the disagreement set hold."""
    inside = {*liars, *disagreement_set(assignment, liars)}
    holders = assignment.workers_of_file.tolist()
    return tuple(file for file in won_files(assignment, liars) if inside.issuperset(holders[file]))


@attack_traits(targets=disagreement_files)
def fixed_disagreement(knowledge: Knowledge, attack: Callable[..., Tensor]) -> Float[Tensor, "m d"]:
    """The attack on files that the liars win against members of one fixed set only.

    The q liars A lie on a file that they win if all its holders are in A or in a set D of q honest
    workers, so that each liar disagrees with D and with nobody else, and D looks as suspicious
    as A. Where every r workers share a file (r odd, q not below the majority), this wins half of
    the ``C(2q, r)`` files. D is :func:`disagreement_set`.

    Formula: row = attack(f) for the files f that the liars win against D alone, g_f elsewhere.

    Knows: what the wrapped attack knows, and the placement.

    Args:
        knowledge: what the attacker knows.
        attack: another attack, ``forge(knowledge) -> rows``.

    Source: ATT-2 of Aspis, Konstantinidis and Ramamoorthy, "Byzantine-Resilient Distributed
    Training via Task Assignment", ISIT 2022 and IEEE/ACM Transactions on Networking 2023,
    Theorem 1.
    """
    liars, files = knowledge.memory.get(_FILES, (None, ()))
    if liars != knowledge.liars:
        files = disagreement_files(knowledge.assignment, knowledge.liars)
        knowledge.memory[_FILES] = knowledge.liars, files
    return _lie_on(files, knowledge, attack)


def _lie_on(
    targets: tuple[int, ...], knowledge: Knowledge, attack: Callable[..., Tensor]
) -> Float[Tensor, "m d"]:
    files = knowledge.files
    lied = [place for place, file in enumerate(files) if file in targets]
    honest = [place for place, file in enumerate(files) if file not in targets]
    blank = knowledge.truth.blank_row()
    rows = blank.new_empty((len(files), len(blank)))
    if lied:
        rows[lied] = attack(replace(knowledge, files=tuple(files[place] for place in lied)))
    rows[honest] = knowledge.truth.rows([files[place] for place in honest])
    return rows
