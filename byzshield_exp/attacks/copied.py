"""True gradients in the wrong place: another file's, or those of an earlier step."""

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.attack import Arguments, Setting, attack_traits
from byzshield_exp.attacks.knowledge import Knowledge
from byzshield_exp.streams import Stream, generator

_RANKING = "mimic"


def _check_mimic(arguments: Arguments, num_files: int) -> None:
    _check_at_least_1(arguments, "warmup")
    victim = arguments["victim"]
    if victim is not None and not 0 <= victim < num_files:
        raise ValueError(f"victim={victim} must be a file, from 0 to {num_files - 1}")


@attack_traits(check=_check_mimic, is_initial_read=lambda arguments: arguments["victim"] is None)
def mimic(
    knowledge: Knowledge, warmup: int = 10, victim: int | None = None
) -> Float[Tensor, "m d"]:
    """The true row of one fixed file that honest workers hold, for every file.

    Without redundancy a file is a worker. The victim weighs more, the others less.

    Formula: row = g_v for every file, where v is the victim.

    Knows: all honest gradients.

    Args:
        knowledge: what the attacker knows.
        warmup: number of first steps whose batches decide the victim, at least 1. They give the
            direction ``z`` of largest variance between files; the victim is the file whose rows
            have the longest sum along it.
        victim: a file, from 0; None: by the warm-up.

    Source: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing", ICLR 2022, Section 3.2. The paper follows ``z`` while training goes on and mimics
    the file that leads so far. Here all gradients of the warm-up are at the initial parameters, so
    that every process, and a resumed run, finds the same victim. ``z`` is found by candid
    incremental PCA (Weng et al. 2003): the paper's Oja iteration, independent of the gradients'
    scale.
    """
    if victim is None:
        if _RANKING not in knowledge.memory:
            knowledge.memory[_RANKING] = _rank_victims(knowledge, warmup)
        honest = set(knowledge.honest_files)
        victim = next(file for file in knowledge.memory[_RANKING] if file in honest)
    return knowledge.truth.rows([victim]).expand(len(knowledge.files), -1)


def _rank_victims(knowledge: Knowledge, warmup: int) -> list[int]:
    """Rank all files, the best to mimic first."""
    random = generator(knowledge.seed, Stream.ATTACK_ONCE)
    direction = knowledge.truth.blank_row()
    direction.copy_(torch.from_numpy(random.standard_normal(len(direction), dtype="float32")))
    files, total = range(knowledge.assignment.num_files), torch.zeros(())
    for step in range(warmup):
        rows = knowledge.truth.rows_at(step, knowledge.past(0), files)
        shadows = rows @ (direction / direction.norm().clamp_min(1e-30))
        spread = (shadows - shadows.mean()) @ rows  # the covariance times the direction
        direction = step / (step + 1) * direction + spread / (step + 1)
        total = rows if step == 0 else total.add_(rows)
    scores = (total @ direction).abs()
    return [int(file) for file in scores.argsort(descending=True, stable=True)]


def _check_delay(arguments: Arguments, num_files: int) -> None:
    _check_at_least_1(arguments, "delay")


def _why_idle(arguments: Arguments, setting: Setting) -> str:
    delay, steps = arguments["delay"], setting.steps
    return f"its delay of {delay} steps does not end within {steps=}" if delay >= steps else ""


@attack_traits(
    check=_check_delay, recent_steps=lambda arguments: arguments["delay"], why_idle=_why_idle
)
def delayed_gradient(knowledge: Knowledge, delay: int = 100) -> Float[Tensor, "m d"]:
    """The true row of the same file number ``delay`` steps ago; before that step, the honest row.

    It is computed again from that step's parameters and batch: a process keeps the parameters of
    the last ``delay`` steps, ``delay * d`` numbers, and so does a checkpoint.

    Formula: row at step s = g_f of step s - delay.

    Knows: own gradients.

    Args:
        knowledge: what the attacker knows.
        delay: steps, at least 1.

    Source: Gorbunov et al., "Secure Distributed Training at Scale" (BTARD), ICML 2022, where the
    delay is 1000 and gradients are kept instead of parameters.
    """
    before = knowledge.step - delay
    if before < 0:
        return knowledge.own_rows()
    return knowledge.truth.rows_at(before, knowledge.past(before), knowledge.files)


def _check_at_least_1(arguments: Arguments, name: str) -> None:
    if arguments[name] < 1:
        raise ValueError(f"{name}={arguments[name]} must be at least 1")
