"""Translate ByzFL's benchmark ``config.json``."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from types import NoneType
from typing import Any

from byzshield_exp.commands.arguments import near
from byzshield_exp.commands.migrate.byzfl_classes import chains, listed, name_of, variants
from byzshield_exp.commands.migrate.mapping import ForeignSetting, find, spelled, table
from byzshield_exp.commands.migrate.translating import (
    Explanation,
    GivenSettings,
    Replacement,
    Rule,
    translate,
)
from byzshield_exp.errors import ConfigError

_TRAINING = {"mnist": 60_000, "fashionmnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
_OWN_OPTIMIZERS = {"SGD": "optimizer=sgd optimizer.momentum=0.0", "Adam": "optimizer=adam"}
_OWN_OPTIMIZERS["AdamW"] = "optimizer=adamw"
_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "choice": str}
_TYPES["text"] = (str, NoneType)
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_WORDS |= {"choice": "a name", "text": "a text"}


def translate_file(path: Path, extra: Mapping[str, str]) -> tuple[list[str], list[Explanation]]:
    """Translate a file; what it sweeps becomes comma lists, or several commands.

    Args:
        path: of the file.
        extra: overrides of ours, by key.

    Raises:
        ConfigError: if it cannot be read, or a key or value is unknown or has no equivalent.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a JSON object")
    known = table("byzfl")
    given = dict(_given(content, ""))
    return translate(known, GivenSettings(known, given, extra), _RULES)


def _given(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Find the settings in a file, whose parts are folders of names."""
    known = table("byzfl")
    for key, value in content.items():
        name = prefix + key
        if name not in known.settings and isinstance(value, dict):
            if not any(other.startswith(f"{name}.") for other in known.settings):
                parts = {other.partition(".")[0] for other in known.settings}
                raise ConfigError(f"{name}: {known.name} has no such part{near(name, parts)}")
            yield from _given(value, f"{name}.")
        else:
            _check(find(name, known), value)
            yield name, value


def _check(setting: ForeignSetting, value: Any) -> None:
    several = value if isinstance(value, list) and setting.kind != "whole" else [value]
    kind = _TYPES.get(setting.kind, object)
    if not several:
        raise ConfigError(f"{setting.name}=[] must have a value")
    for one in several:
        if not isinstance(one, kind) or (
            isinstance(one, bool) and setting.kind in ("int", "float")
        ):
            raise ConfigError(f"{setting.name}={json.dumps(one)} must be {_WORDS[setting.kind]}")


def _single(settings: GivenSettings, name: str) -> Any:
    """Return a value that cannot be swept here."""
    if isinstance(settings[name], list):
        raise ConfigError(f"{name}={json.dumps(settings[name])}: give one value")
    return settings[name]


def _algorithm(settings: GivenSettings) -> Replacement:
    for one in listed(settings["benchmark_config.training_algorithm"]):
        name = name_of(one, "benchmark_config.training_algorithm")
        if name != "DSGD":
            raise ConfigError(
                f"benchmark_config.training_algorithm.name={name} has no equivalent: workers send "
                "gradients of each step, as in DSGD"
            )
    return Replacement([["approach=baseline"]])


def _counts(settings: GivenSettings) -> Replacement:
    """K, q and the batch of a step depend on each other: a branch for each pair."""
    batches = listed(settings["honest_clients.batch_size"])
    are_clients = settings["benchmark_config.set_honest_clients_as_clients"] is True
    branches = []
    for honest, liars in product(
        listed(settings["benchmark_config.nb_honest_clients"]),
        listed(settings["benchmark_config.f"]),
    ):
        workers = honest if are_clients else honest + liars
        sizes = ",".join(str(batch * workers) for batch in batches)
        branches.append([f"K={workers}", f"q={liars}", f"batch_size={sizes}"])
    return Replacement(branches)


def _told(settings: GivenSettings) -> Replacement:
    told = settings["benchmark_config.tolerated_f"]
    return Replacement(
        remark="" if told in (None, settings["benchmark_config.f"]) else _note("tolerated")
    )


def _note(part: str) -> str:
    notes = [one.note for name, one in table("byzfl").settings.items() if f".{part}" in name]
    return notes[0]


def _of_batch(settings: GivenSettings) -> Replacement:
    return Replacement(remark="times K, above; ours is of the whole step")


def _attack(settings: GivenSettings) -> Replacement:
    return variants("attack", settings)


def _aggregator(settings: GivenSettings) -> Replacement:
    return variants("aggregator", settings)


def _held_out(settings: GivenSettings) -> Replacement:
    share = _single(settings, "benchmark_config.size_train_set")
    names = listed(settings["model.dataset_name"])
    totals = {_TRAINING[name] for name in names if name in _TRAINING}
    if len(totals) != 1 or "dataset" in settings.extra:
        return Replacement(remark="dataset.num_validation=N holds N training pictures out")
    total = totals.pop()
    held = total - int(share * total)
    return Replacement([[f"dataset.num_validation={held}"]] if held else [[]])


def _optimizer(settings: GivenSettings) -> Replacement:
    name = _single(settings, "model.optimizer_name")
    if name in _OWN_OPTIMIZERS:
        return Replacement([_OWN_OPTIMIZERS[name].split()])
    return Replacement([["optimizer=other", f"optimizer._target_=torch.optim.{name}"]])


def _weight_decay(settings: GivenSettings) -> Replacement:
    plus = "" if settings["model.optimizer_name"] in _OWN_OPTIMIZERS else "+"
    values = ",".join(map(spelled, listed(settings["honest_clients.weight_decay"])))
    return Replacement([[f"{plus}optimizer.weight_decay={values}"]])


def _decay(settings: GivenSettings) -> Replacement:
    if not settings["model.milestones"] or settings["model.learning_rate_decay"] == 1:
        said = "model.learning_rate_decay" in settings.given
        return Replacement(remark="no milestones: it is never applied" if said else "")
    values = ",".join(map(spelled, listed(settings["model.learning_rate_decay"])))
    return Replacement([[f"optimizer.decay={values}"]])


def _milestones(settings: GivenSettings) -> Replacement:
    """Find the period whose multiples up to the last step are the milestones."""
    steps, milestones = settings["benchmark_config.nb_steps"], settings["model.milestones"]
    if not isinstance(milestones, list) or not all(
        type(one) is int and one > 0 for one in milestones
    ):
        raise ConfigError(f"model.milestones={json.dumps(milestones)} must be a list of steps")
    if not milestones or settings["model.learning_rate_decay"] == 1:
        return Replacement(remark="never applied" if "model.milestones" in settings.given else "")
    first, last = min(milestones), max(listed(steps))
    if sorted(milestones) != list(range(first, max(last, max(milestones) + 1), first)):
        remark = f"ours decays at every multiple of {first}: these milestones have no equivalent"
        return Replacement([[f"optimizer.decay_every={first}"]], remark)
    return Replacement([[f"optimizer.decay_every={first}"]], "the same steps")


def _seeds(settings: GivenSettings) -> Replacement:
    first = _single(settings, "benchmark_config.training_seed")
    count = _single(settings, "benchmark_config.nb_training_seeds")
    return Replacement([[f"seed={','.join(str(first + at) for at in range(count))}"]])


def _of_seeds(settings: GivenSettings) -> Replacement:
    return Replacement(
        remark="in seed=" if "benchmark_config.nb_training_seeds" in settings.given else ""
    )


def _device(settings: GivenSettings) -> Replacement:
    name = str(_single(settings, "benchmark_config.device") or "cpu")
    remark = "of several GPUs CUDA_VISIBLE_DEVICES chooses" if ":" in name else ""
    return Replacement([[f"device={name.partition(':')[0]}"]], remark)


def _distribution(settings: GivenSettings) -> Replacement:
    lost = []
    for one in listed(settings["benchmark_config.data_distribution"]):
        name = name_of(one, "benchmark_config.data_distribution")
        values = listed(one.get("distribution_parameter", 1.0))
        is_mixed = name == "gamma_similarity_niid"  # 1.0 is iid
        unequal = [value for value in values if not (is_mixed and value == 1)]
        lost += [] if name == "iid" else [f"{name} {value}" for value in unequal]
    if not lost:
        return Replacement(remark="iid, as here")
    return Replacement(
        remark=f"no equivalent of {', '.join(lost)}: workers draw from the same data here"
    )


def _nothing(settings: GivenSettings) -> Replacement:
    return Replacement()


_RULES: dict[str, Rule] = {
    "benchmark_config.training_algorithm": _algorithm,
    "benchmark_config.nb_honest_clients": _nothing,
    "benchmark_config.f": _counts,
    "benchmark_config.set_honest_clients_as_clients": _nothing,
    "benchmark_config.tolerated_f": _told,
    "attack": _attack,
    "pre_aggregators": chains,
    "aggregator": _aggregator,
    "benchmark_config.size_train_set": _held_out,
    "honest_clients.batch_size": _of_batch,
    "model.optimizer_name": _optimizer,
    "model.learning_rate_decay": _decay,
    "model.milestones": _milestones,
    "honest_clients.weight_decay": _weight_decay,
    "benchmark_config.training_seed": _seeds,
    "benchmark_config.nb_training_seeds": _of_seeds,
    "benchmark_config.device": _device,
    "benchmark_config.data_distribution": _distribution,
}
