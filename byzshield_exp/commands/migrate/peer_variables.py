"""Translate the variables of BTARD's notebook and of L46's ``config.py``."""

import ast
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
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

_SAMPLES = {"Net": 60_000}  # MNIST; the others train on CIFAR-10's 50,000
_PARTICIPANT = "BYZANTINE_PARTICIPANT"
_DELAYED = "DelayedGradientAttacker"
_COMPUTED_THERE = ("BYZANTINE_IDS", "ban_prob")  # by a formula that is ours too


def translate_variables(
    arguments: Sequence[str], extra: Mapping[str, str]
) -> tuple[list[str], list[Explanation]]:
    """Translate ``NAME=VALUE`` arguments and files; what comes later counts.

    Args:
        arguments: of the command line.
        extra: overrides of ours, by key.

    Raises:
        ConfigError: for a variable or value that is unknown or is computed in the file.
    """
    known = table("btard")
    assigned: dict[str, ast.expr] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            assigned |= _of_file(Path(argument))
            continue
        find(name, known)
        assigned[name] = _expression(value)
    given = _given(assigned)
    return translate(known, GivenSettings(known, given, extra), _RULES)


def _expression(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return ast.Constant(text)


def _of_file(path: Path) -> dict[str, ast.expr]:
    """Read the assignments in the body of a class ``config``.

    Raises:
        ConfigError: if it cannot be read or has no such class.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = _code_of(json.loads(text))
        tree = ast.parse(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, SyntaxError) as error:  # of JSON, UTF-8 or Python
        raise ConfigError(f"{path}: not a Python file or a notebook: {error}") from error
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bodies = [node.body for node in classes if node.name.lower() == "config"]
    if not bodies:
        raise ConfigError(f"{path}: has no class config")
    return {
        line.targets[0].id: line.value
        for line in bodies[0]
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def _code_of(notebook: Mapping[str, Any]) -> str:
    cells = [one for one in notebook.get("cells", []) if one.get("cell_type") == "code"]
    lines = "\n".join("".join(one["source"]) for one in cells).splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def _given(assigned: Mapping[str, ast.expr]) -> dict[str, Any]:
    """Read the values, with the arguments of the participant as variables of their own."""
    known, flat = table("btard"), dict(assigned)
    participant = assigned.get(_PARTICIPANT)
    if isinstance(participant, ast.Call) and participant.args:
        inside = {one.arg: one.value for one in participant.keywords if one.arg}
        flat = {**inside, **flat, _PARTICIPANT: participant.args[0]}
    given = {}
    for name, expression in flat.items():
        setting = find(name, known)
        value = _value(expression, assigned)
        if value is None and (setting.none or name in _COMPUTED_THERE):
            continue
        if value is None:
            code = ast.unparse(expression)
            raise ConfigError(f"{name} = {code} is not a value: add {name}=... after the file")
        is_text = isinstance(value, str) and setting.kind != "workers"
        given[name] = read(setting, value) if is_text else _checked(name, value)
    return given


def _value(expression: ast.expr, assigned: Mapping[str, ast.expr]) -> Any:
    """Read a number, a list, or the name of a class; None for what has to be computed."""
    if isinstance(expression, ast.Name):
        earlier = assigned.get(expression.id)
        return expression.id if earlier is None else _value(earlier, {})
    if isinstance(expression, ast.Attribute):
        return expression.attr
    if isinstance(expression, ast.Call) and not expression.args and not expression.keywords:
        return _value(expression.func, {})  # MODEL = model.Net()
    try:
        return ast.literal_eval(expression)
    except ValueError:
        return None


def _checked(name: str, value: Any) -> Any:
    """Compare a value with the type of its setting.

    Raises:
        ConfigError: if it has another.
    """
    kind = table("btard").settings[name].kind
    types = {"int": int, "float": (int, float), "bool": bool, "workers": list}
    is_wrong = kind in types and not isinstance(value, types[kind])  # type: ignore[arg-type]
    if is_wrong or (isinstance(value, bool) and kind in ("int", "float")):
        words = {"int": "a whole number", "float": "a number", "bool": "True or False"}
        raise ConfigError(f"{name}={value} must be {words.get(kind, 'a list of workers')}")
    return value if kind in types else str(value)


def _liars(settings: GivenSettings) -> Replacement:
    return Replacement([[f"q={settings['NUM_BYZANTINES']}"]])


def _who(settings: GivenSettings) -> Replacement:
    workers, liars = settings["NUM_WORKERS"], settings["NUM_BYZANTINES"]
    if not 0 <= liars < workers:
        raise ConfigError(f"NUM_BYZANTINES={liars} must lie in 0 to NUM_WORKERS-1={workers - 1}")
    who = settings["BYZANTINE_IDS"]
    if who is None:
        who = random.Random(settings["GLOBAL_SEED"]).sample(range(1, workers), liars)
    if not liars:
        return Replacement()
    spelled = ",".join(map(str, sorted(who)))
    return Replacement([["adversary=explicit", f"adversary.workers=[{spelled}]"]])


def _start(settings: GivenSettings) -> Replacement:
    return Replacement([[f"adversary.start={settings['attack_start'] + 1}"]])


def _stop(settings: GivenSettings) -> Replacement:
    if settings[_PARTICIPANT] != _DELAYED:
        return Replacement()
    length = settings["attack_length"] * settings["attack_every"]
    return Replacement([[f"adversary.stop={settings['attack_start'] + length + 1}"]])


def _delay(settings: GivenSettings) -> Replacement:
    is_delayed = settings[_PARTICIPANT] == _DELAYED
    return Replacement([[f"attack.delay={settings['delay']}"]] if is_delayed else [[]])


def _ban(settings: GivenSettings) -> Replacement:
    coin = ["protocol.ban=bernoulli", "protocol.on_ban=replace_honest"]
    if settings["ban_prob"] is not None:
        coin.append(f"protocol.ban_probability={settings['ban_prob']}")
    return Replacement([coin])


def _augment(settings: GivenSettings) -> Replacement:
    grey = settings["MODEL"] == "Net"
    if settings["AUGMENT_DATA"]:
        return Replacement([["dataset.augment=crop"]] if grey else [[]])
    return Replacement([[]] if grey else [["dataset.augment=none"]])


def _batch(settings: GivenSettings) -> Replacement:
    whole = settings["BATCH_SIZE_PER_WORKER"] * settings["NUM_WORKERS"]
    return Replacement([[f"batch_size={whole}"]])


def _steps(settings: GivenSettings) -> Replacement:
    samples = _SAMPLES.get(settings["MODEL"], 50_000)
    batches = math.ceil(samples / settings["BATCH_SIZE_PER_WORKER"])
    steps = settings["MAX_EPOCHS_PER_WORKER"] * batches
    stop = settings["EARLY_STOP_STEPS"]
    return Replacement([[f"steps={steps if stop is None else min(stop, steps)}"]])


def _stopped(settings: GivenSettings) -> Replacement:
    said = "EARLY_STOP_STEPS" in settings.given
    return Replacement(remark="in steps=, if it is less" if said else "")


def _horizon(settings: GivenSettings) -> Replacement:
    samples = _SAMPLES.get(settings["MODEL"], 50_000)
    batches = samples // settings["BATCH_SIZE_PER_WORKER"]
    horizon = settings["COSINE_T_MAX_RATE"] * settings["MAX_EPOCHS_PER_WORKER"] * batches
    return Replacement([["optimizer.schedule=cosine", f"optimizer.horizon={round(horizon)}"]])


def _attack(settings: GivenSettings) -> Replacement:
    setting = table("btard").settings[_PARTICIPANT]
    return plain(setting, settings[_PARTICIPANT], settings)


_RULES: dict[str, Rule] = {
    "NUM_BYZANTINES": _liars, "BYZANTINE_IDS": _who, "attack_start": _start,
    "attack_length": _stop, _PARTICIPANT: _attack, "delay": _delay, "ban_prob": _ban,
    "AUGMENT_DATA": _augment, "BATCH_SIZE_PER_WORKER": _batch, "MAX_EPOCHS_PER_WORKER": _steps,
    "EARLY_STOP_STEPS": _stopped, "COSINE_T_MAX_RATE": _horizon,
}  # fmt: skip
