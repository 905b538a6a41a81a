"""A cheat that alters anything at random, as no attacker with a plan would think of it."""

from typing import Any

import numpy as np
import torch

from byzshield_exp.training.btard.cheating import Move
from byzshield_exp.training.btard.postings import Phase, part_digest


def chaos(move: Move, chance: float = 0.1) -> Any:
    """Now and then keep back, change or spoil what a liar posts or sends."""
    attempt, content = move.attempt, move.content
    receiver = 0 if move.receiver is None else move.receiver + 50
    place = attempt.step, attempt.number, move.peer, list(Phase).index(move.phase), receiver
    random = np.random.default_rng([attempt.rules.seed, *place])
    if random.random() > (chance if move.receiver is None else chance / 10):
        return content
    if isinstance(content, torch.Tensor):
        altered = [content + 1, content * torch.nan, -content]
        return [*altered, None if move.phase is not Phase.CLIP else content][random.integers(4)]
    if random.random() < 0.2:
        return None
    names = [name for name in content.dtype.names if name != "complaints" or random.random() < 0.2]
    if not names:
        return content
    name = str(random.choice(names))
    field = np.atleast_1d(content[name])
    noise = np.frombuffer(random.bytes(field.nbytes), dtype=field.dtype).reshape(field.shape)
    new = noise if random.random() < 0.5 else np.zeros_like(noise)
    is_new = random.random(field.shape) < random.choice([0.2, 1])
    content[name] = np.where(is_new, new, field).reshape(content[name].shape)
    return content


def denial(move: Move) -> Any:
    """Say that its row, which is sent, is not finite, and take part in no sum."""
    content = move.content
    if move.phase is Phase.COMMIT:
        content["finite"], content["digests"] = 0, 0
    if move.phase is Phase.SUMS:
        content["s"], content["nu"] = 0, 0
    return content


def claim(move: Move) -> Any:
    """Say that the part which it aggregates itself is finite, although it is not."""
    attempt, peer, content = move.attempt, move.peer, move.content
    if move.phase is Phase.COMMIT and peer in attempt.roster.place_of:
        part = attempt.part_of(peer)
        row = attempt.gradients.sent(peer)[attempt.parts[part]]
        digest = part_digest(attempt.step, attempt.number, peer, part, row, True)
        content["finite"][part] = 1
        content["digests"][part] = np.frombuffer(digest, np.uint8)
    return content
