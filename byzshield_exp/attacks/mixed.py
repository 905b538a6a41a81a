"""Several attacks in one run, each made by liars of its own."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.attack import Arguments, Liars, Share, attack_traits
from byzshield_exp.attacks.knowledge import Knowledge


def _check(arguments: Arguments, num_files: int) -> None:
    attacks, workers = arguments["attacks"], arguments["workers"] or {}
    for name, its in workers.items():
        if name not in attacks:
            raise ValueError(f"workers.{name}={its}: the attacks are {', '.join(attacks)}")
    named = [worker for its in workers.values() for worker in its]
    for worker in named:
        if named.count(worker) > 1:
            raise ValueError(f"workers={workers} names worker {worker} twice")


def _share(arguments: Arguments, liars: Liars) -> dict[str, Share]:
    attacks, workers = arguments["attacks"], arguments["workers"] or {}
    said = f"the liars are {', '.join(map(str, liars))}"
    for name, its in workers.items():
        for worker in its:
            if worker not in liars:
                raise ValueError(f"workers.{name}={its}: worker {worker} does not lie, {said}")
    named = {worker for its in workers.values() for worker in its}
    others = [worker for worker in liars if worker not in named]
    open_to_all = [name for name in attacks if name not in workers]
    if others and not open_to_all:
        raise ValueError(f"workers={workers} leaves worker {others[0]} without an attack, {said}")
    turns = {name: others[at :: len(open_to_all)] for at, name in enumerate(open_to_all)}
    made = {name: (attack, tuple((turns | workers)[name])) for name, attack in attacks.items()}
    for name, (_, its) in made.items():
        if not its:
            raise ValueError(f"attacks.{name} is left without a worker, {said}")
    return made


@attack_traits(check=_check, shares=_share)
def mixed(
    knowledge: Knowledge,
    attacks: Mapping[str, Callable[..., Tensor]],
    workers: Mapping[str, list[int]] | None = None,
) -> Float[Tensor, "m d"]:
    """Several attacks in one run, each made by liars of its own.

    A liar sends what it would send if all liars made its attack. In a run, liars with the same
    attack send equal rows, those with different ones different rows. Where only one row can be
    sent for a file (here, and inside another attack), it is that of the first attack whose liars
    hold the file.

    Formula: row of worker w = the row of the attack that w makes.

    Knows: what the wrapped attacks know.

    Args:
        knowledge: what the attacker knows.
        attacks: by a name of your choice.
        workers: the liars that make an attack, by its name. The others, in ascending order, take
            the attacks that are not named here in turn.

    Raises:
        ValueError: unless each liar has one attack and each attack a liar.

    Source: our own; L46's report proposes it as future work.
    """
    made = _share({"attacks": attacks, "workers": workers}, knowledge.liars)
    by_file: dict[int, Tensor] = {}
    for name, (attack, its) in made.items():
        held = knowledge.assignment.incidence[list(its)].any(dim=0)
        files = [file for file in knowledge.files if held[file] and file not in by_file]
        memory = knowledge.memory.setdefault(name, {})
        rows = attack(replace(knowledge, files=tuple(files), memory=memory))
        by_file |= dict(zip(files, rows, strict=True))
    return knowledge.row_by_row(by_file.__getitem__)
