"""Name what TensorBoard shows of a step: the group, the tag, and what it means.

TensorBoard sorts groups by name, so ``accuracy/`` comes first.
"""

from collections.abc import Mapping
from typing import Any

SPLITS = ("test", "validation")
REALISED, WORST = "byzantine/eps_hat_realised", "byzantine/eps_hat_worst"
PLACEMENT = "byzantine/placement"

# By key of a record: the tag and its description. Lists are shown by their length.
_KNOWN = {
    "loss": ("loss/train", "Mean over files of the loss that workers report, in nats."),
    "lr": ("loss/learning_rate", "Learning rate of the step."),
    "skipped": ("byzantine/skipped_update", "1 where the update was NaN or Inf and left out."),
    "byzantine": ("byzantine/liars", "Workers who lied in this step."),
    "distorted_files": (
        "byzantine/distorted_files",
        "Files whose winner was forged: no honest worker sent the row that won.",
    ),
    "files_without_majority": (
        "vote/files_without_majority",
        "Files left out of the step: too few of their replicas were equal.",
    ),
    "vote_disagreements": (
        "vote/disagreements", "Replicas that differ from their file's most common one.",
    ),
    "nonfinite_files": ("vote/nonfinite_winners", "Files whose winner has a NaN or Inf."),
    "absent": ("vote/absent_workers", "Workers whose messages did not come."),
    "rejected": ("vote/rejected_messages", "Messages that were not what was expected."),
    "caught": ("vote/caught_workers", "Workers who sent a row that differs from its digest."),
    "alive": ("byzantine/peers_left", "Peers that are not banned or gone."),
    "banned": ("byzantine/banned", "Peers banned so far."),
    "accusations": ("byzantine/accusations", "Accusations of validators and aggregators."),
    "eliminations": ("byzantine/eliminations", "Pairs of which one complained of the other."),
    "trials": ("byzantine/trials", "Parts of the vector that were checked in public."),
    "attempts": ("byzantine/attempts", "Attempts of the step; each ban makes one more."),
    "clipped_share": ("byzantine/clipped_share", "Share of pieces of rows that were clipped."),
    "iterations": ("byzantine/clip_iterations", "Iterations of centred clipping, the most."),
    "residual": ("byzantine/clip_residual", "Relative residual of clipping, the largest."),
    "bytes_in": ("traffic/server_in", "Bytes that rank 0 received in the step."),
    "data_bytes": ("traffic/peers_data", "Bytes of vectors between peers, over all attempts."),
    "control_bytes": ("traffic/peers_control", "Bytes that peers posted, over all attempts."),
    "seconds.total": ("time/step", "Seconds of the step on the wall clock."),
    "norms_honest": ("byzantine/norms_honest", "Norms of the winners that honest workers sent."),
    "norms_forged": ("byzantine/norms_forged", "Norms of the winners that were forged."),
    "distances_honest": (
        "byzantine/distances_honest", "Distances of honest peers' rows from the aggregate.",
    ),
    "distances_attacking": (
        "byzantine/distances_attacking", "Distances of attackers' rows from the aggregate.",
    ),
}  # fmt: skip
_DESCRIPTIONS = {
    **dict(_KNOWN.values()),
    REALISED: "Share of files whose winner was forged in this step, in [0, 1].",
    WORST: "Share of files that the worst q workers win: c_max / f, computed from the placement.",
    PLACEMENT: "Who computes which file. Orange: the worst set of liars; black: files they win.",
    "accuracy/test_top5": "Share of test pictures whose class is among the five likeliest.",
}
# Counted by others: banned_now by banned, attacking by byzantine. Events are text.
_LEFT_OUT = frozenset({"step", "banned_now", "attacking", "events"})


def tag_of(key: str) -> str:
    """Return the tag of a record's key; one that is not known belongs to ``byzantine/``."""
    if key in _KNOWN:
        return _KNOWN[key][0]
    split, _, what = key.partition("_")
    if split in SPLITS and what in ("accuracy", "loss"):
        return f"{what}/{split}"
    if split in SPLITS and what == "top5":
        return f"accuracy/{key}"
    group, dot, phase = key.partition(".")
    return f"time/{phase}" if dot and group == "seconds" else f"byzantine/{key.replace('.', '/')}"


def description_of(tag: str) -> str:
    """Say what a tag means; empty if nobody said."""
    if tag in _DESCRIPTIONS:
        return _DESCRIPTIONS[tag]
    group, _, name = tag.partition("/")
    if name in SPLITS:
        what = {"accuracy": "Share classified rightly", "loss": "Mean cross-entropy in nats"}
        return f"{what.get(group, group)}, of {name} pictures."
    return f"Seconds of the phase {name}: of the slowest rank." if group == "time" else ""


def is_always_shown(tag: str) -> bool:
    """Whether a tag is written even while it is 0."""
    return tag.startswith(("accuracy/", "loss/"))


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record by tag.

    Args:
        record: of a step, or of an evaluation.
    """
    seconds = {f"seconds.{phase}": value for phase, value in record.get("seconds", {}).items()}
    values: dict[str, float] = {}
    for key, value in {**record, **seconds}.items():
        if key in _LEFT_OUT:
            continue
        if isinstance(value, list | tuple):
            values[tag_of(key)] = float(len(value))
        elif isinstance(value, int | float):
            values[tag_of(key)] = float(value)
    return values
