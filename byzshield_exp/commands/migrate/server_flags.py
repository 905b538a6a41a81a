"""Translate command lines of ByzShield's and DETOX's ``distributed_nn.py``."""

from collections.abc import Mapping, Sequence
from typing import Any

from byzshield_exp.commands.migrate.mapping import find, read, table
from byzshield_exp.commands.migrate.translating import (
    Explanation,
    GivenSettings,
    Replacement,
    Rule,
    plain,
    translate,
)
from byzshield_exp.errors import ConfigError

_GROUPS = ("maj_vote", "draco_lite", "draco-lite", "draco_lite_attack")
_DETOX = _GROUPS[1:]
_VOTED_MODES = ("coord-median", "sign-sgd", "bulyan", "multi-krum")
_WITHOUT_FOE = ("normal", "geometric_median", "sign-sgd")  # of baseline
_PAPERS_LOAD = 5  # K = 15 and 25 with r = 3 and 5


def translate_flags(
    arguments: Sequence[str], extra: Mapping[str, str], is_detox: bool = False
) -> tuple[list[str], list[Explanation]]:
    """Translate flags, or a whole line ``mpirun -n 16 ... python distributed_nn.py FLAGS``.

    Args:
        arguments: of the command line.
        extra: overrides of ours, by key.
        is_detox: as DETOX's code, where ByzShield's differs.

    Raises:
        ConfigError: for a flag or value that is unknown or has no equivalent.
    """
    known = table("byzshield")
    settings = GivenSettings(known, given_flags(arguments), extra)
    rules: dict[str, Rule] = {**_RULES, **(_OF_DETOX if is_detox else {})}
    return translate(known, settings, rules)


def given_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """Read the flags; of a flag that is given twice the last counts, as for argparse.

    Raises:
        ConfigError: for the first that is wrong.
    """
    known, given = table("byzshield"), {}
    scripts = [at for at, word in enumerate(arguments) if word.endswith(".py")]
    first = scripts[0] + 1 if scripts else 0
    words = [*_launcher(arguments[:first]), *arguments[first:]]
    while words:
        name, equals, text = words.pop(0).partition("=")
        if not name.startswith("-"):
            raise ConfigError(f"{name}: flags are --name=value or --name value")
        setting = find(name, known)
        if setting.kind != "flag" and not equals:
            if not words:
                raise ConfigError(f"{name} needs a value")
            text = words.pop(0)
        given[name] = read(setting, text)
    return given


def _launcher(words: Sequence[str]) -> list[str]:
    """Find the number of processes among mpirun's options."""
    for at, word in enumerate(words[:-1]):
        if word in ("-n", "-np"):
            return ["-n", words[at + 1]]
    return []


def _workers(settings: GivenSettings) -> int:
    if "K" in settings.extra:
        try:
            return int(settings.extra["K"])
        except ValueError as error:
            raise ConfigError(f"K={settings.extra['K']} must be a whole number") from error
    if "-n" in settings.given:
        return int(settings["-n"] - 1)
    replicas = settings["--group-size"]
    return int(replicas * (replicas if _approach(settings) == "rama_two" else _PAPERS_LOAD))


def _processes(settings: GivenSettings) -> Replacement:
    if "-n" in settings.given:
        return Replacement([[f"K={_workers(settings)}"]])
    if "K" in settings.extra:
        return Replacement()
    remark = "mpirun's -n is not given: as the paper's with this r; K=N before -- sets it"
    return Replacement([[f"K={_workers(settings)}"]], remark)


def _files(settings: GivenSettings) -> int:
    """Count the files of the placement, as both codes do."""
    workers, approach = _workers(settings), _approach(settings)
    replicas: int = settings["--group-size"]
    if approach == "baseline":
        return workers
    if approach in _GROUPS:
        return int(max(1, workers // replicas))
    if approach == "rama_two":
        return int(replicas * max(replicas, settings["--rama-m"]))
    return int((workers // replicas) ** 2)


def _approach(settings: GivenSettings) -> str:
    return str(settings["--approach"])


def _rama_m(settings: GivenSettings) -> Replacement:
    if _approach(settings) == "rama_two":
        return Replacement(
            [[f"approach.m={settings['--rama-m']}"]] if settings["--rama-m"] > 0 else [[]]
        )
    return Replacement(remark="counts for rama_two only" if "--rama-m" in settings.given else "")


def _liars(settings: GivenSettings) -> Replacement:
    if _approach(settings) == "draco_lite_attack":
        said = "--byzantine-gen" in settings.given
        return Replacement(remark="draco_lite_attack: --detox-attack says who lies" if said else "")
    return _plain("--byzantine-gen", settings)


def _detox_attack(settings: GivenSettings) -> Replacement:
    if _approach(settings) == "draco_lite_attack":
        return _plain("--detox-attack", settings)
    said = "--detox-attack" in settings.given
    return Replacement(remark="counts for draco_lite_attack only" if said else "")


def _is_simulated(settings: GivenSettings) -> bool:
    return bool(settings["--lis-simulation"] == "simulate" and _approach(settings) != "maj_vote")


def _error(settings: GivenSettings) -> Replacement:
    if _is_simulated(settings):
        said = "--err-mode" in settings.given
        return Replacement(
            remark="theirs does nothing with --lis-simulation=simulate" if said else ""
        )
    part = _plain("--err-mode", settings)
    approach, mode = _approach(settings), settings["--mode"]
    is_idle = approach == "maj_vote" or (approach == "baseline" and mode in _WITHOUT_FOE)
    if settings["--err-mode"] == "foe" and is_idle:
        return Replacement(
            part.branches, f"theirs of foe attacks nobody with {approach} and mode {mode}"
        )
    return part


def _alie(settings: GivenSettings) -> Replacement:
    if _is_simulated(settings):
        return Replacement([["attack=alie_byzshield"]], "in place of --err-mode")
    is_idle = settings["--lis-simulation"] == "simulate"
    return Replacement(remark="theirs does nothing with maj_vote" if is_idle else "")


def _mode(settings: GivenSettings) -> Replacement:
    approach, mode = _approach(settings), settings["--mode"]
    part, buckets = _plain("--mode", settings), settings["--bucket-size"]
    if approach == "baseline":
        return Replacement(
            part.branches, "there layer by layer" if mode == "geometric_median" else ""
        )
    if approach == "maj_vote":
        remark = "theirs does not vote in mode normal: approach=baseline does not"
        return Replacement(part.branches, remark if mode == "normal" else "")
    if mode not in _VOTED_MODES:
        return Replacement(part.branches, f"theirs has no mode {mode} after this vote, and stops")
    if mode == "coord-median" and buckets != _files(settings):
        own = [] if buckets < 1 else [f"aggregator.num_buckets={buckets}"]
        return Replacement([["aggregator=median_of_means", *own]], _of_buckets(buckets))
    if mode in ("sign-sgd", "multi-krum") and buckets > 1:
        remark = f"theirs works inside each of {buckets} buckets and joins the results; ours on all"
        return Replacement(part.branches, remark)
    return part


def _of_buckets(buckets: int) -> str:
    if buckets < 1:
        return "theirs stops at --bucket-size 0; ours takes 2 num_corrupt + 1 buckets"
    return "the mean of all: one bucket has no median" if buckets == 1 else ""


def _buckets(settings: GivenSettings) -> Replacement:
    is_idle = "--bucket-size" in settings.given and _approach(settings) in ("baseline", "maj_vote")
    return Replacement(remark="counts for what follows a vote on files" if is_idle else "")


def _batch(settings: GivenSettings) -> Replacement:
    size, approach = settings["--batch-size"], _approach(settings)
    if approach == "baseline" or approach in _GROUPS:
        remark = f"theirs is that of a {'worker' if approach == 'baseline' else 'group'}"
        return Replacement([[f"batch_size={size * _files(settings)}"]], remark)
    if size % _files(settings) == 0:
        return Replacement([[f"batch_size={size}"]], "of the whole step, as theirs")
    return Replacement([[f"batch_size={size}", "batch_rounding=down"]])


def _decay(settings: GivenSettings) -> Replacement:
    if settings["--gamma"] == 1 or _approach(settings) == "maj_vote":
        return Replacement()
    if "--lr-step" not in settings.given:
        return Replacement(remark="without --lr-step it is never applied")
    return Replacement([[f"optimizer.decay={settings['--gamma']}"]])


def _decay_every(settings: GivenSettings) -> Replacement:
    if settings["--gamma"] == 1 or _approach(settings) == "maj_vote":
        return Replacement()
    every = settings["--lr-step"] if "--lr-step" in settings.given else None
    return Replacement([[f"optimizer.decay_every={every}"]] if every else [[]])


def _folder(settings: GivenSettings) -> Replacement:
    if "--train-dir" not in settings.given:
        return Replacement()
    return Replacement([[f"output_dir={settings['--train-dir'].rstrip('/') or '/'}"]])


def _random_liars(settings: GivenSettings) -> Replacement:
    return Replacement([["adversary=random"]], "DETOX: always random")


def _detox_decay(settings: GivenSettings) -> Replacement:
    is_decayed = _approach(settings) == "baseline"
    overrides = ["optimizer.decay=0.99", "optimizer.decay_every=10000"] if is_decayed else []
    return Replacement([overrides], "DETOX: .99 every 10000 steps" if is_decayed else "")


def _detox_mode(settings: GivenSettings) -> Replacement:
    part = _mode(settings)
    if settings["--mode"] == "multi-krum" and _approach(settings) in _DETOX:
        return Replacement(
            part.branches, "DETOX: inside each of 2 buckets, then their mean; ours on all"
        )
    return part


def _nothing(settings: GivenSettings) -> Replacement:
    return Replacement()


def _plain(name: str, settings: GivenSettings) -> Replacement:
    setting = table("byzshield").settings[name]
    return plain(setting, settings[name], settings)


_RULES: dict[str, Rule] = {
    "-n": _processes, "--rama-m": _rama_m, "--byzantine-gen": _liars,
    "--detox-attack": _detox_attack, "--err-mode": _error, "--lis-simulation": _alie,
    "--mode": _mode, "--bucket-size": _buckets, "--batch-size": _batch, "--gamma": _decay,
    "--lr-step": _decay_every, "--train-dir": _folder,
}  # fmt: skip
_OF_DETOX: dict[str, Rule] = {
    "--byzantine-gen": _random_liars, "--detox-attack": _nothing, "--mode": _detox_mode,
    "--gamma": _detox_decay, "--lr-step": _nothing,
}  # fmt: skip
