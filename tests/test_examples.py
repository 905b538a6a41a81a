"""``examples/``: every block of the page runs and prints what the page says."""

import importlib
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from byzshield_exp import aggregators, attacks
from byzshield_exp.commands.choices import choices

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = (EXAMPLES / "README.md").read_text()
SMALL = ("dataset=synthetic", "network=mlp", "steps=2")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_MARK = "-- end of block --"


def blocks():
    """Python blocks, each with the text block that follows it."""
    found = _BLOCK.findall(PAGE)
    for (kind, code), (next_kind, text) in zip(found, [*found[1:], ("", "")], strict=True):
        if kind == "python":
            yield code, text if next_kind == "text" else ""


def commands():
    for kind, lines in _BLOCK.findall(PAGE):
        if kind == "sh":
            yield from lines.splitlines()


def test_blocks_print_what_the_page_says():
    """In order, in one namespace, in a process of their own."""
    script = "\n".join(f"{code}\nprint({_MARK!r})" for code, _ in blocks())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=EXAMPLES, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(f"{_MARK}\n")[:-1]
    for (code, text), output in zip(blocks(), printed, strict=True):
        assert output.strip() == text.strip(), code


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.thorough] if number > 0 else [])
        for number, command in enumerate(commands())
    ],
)
def test_commands_run(command, tmp_path):
    """As they stand, for two steps, from the folder of the examples."""
    (arguments,) = re.fullmatch(r"byzshield (.*)", command).groups()
    script = "import sys; sys.path.pop(0); from byzshield_exp.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments.split(), *SMALL, f"output_dir={tmp_path}"],
        cwd=EXAMPLES, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*/summary.json"))) == (4 if "-m aggregator" in command else 1)


@pytest.mark.parametrize("name", ["my_rules", "my_attacks"])
def test_a_module_of_your_own_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 20


@pytest.mark.slow
def test_arguments_of_your_own_are_checked(tmp_path):
    def complaint(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "byzshield_exp", "--config-dir", "conf", *arguments, *SMALL,
             f"output_dir={tmp_path}"],
            cwd=EXAMPLES, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2
        return done.stderr

    assert "aggregator.radius='x' must be float" in complaint(
        "aggregator=near_median", "aggregator.radius=x"
    )
    assert "did you mean 'radius'?" in complaint("aggregator=near_median", "+aggregator.radios=1")


def test_links_of_the_page_resolve():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert "://" in target or (EXAMPLES / target).exists(), target


def test_presets_of_the_page_exist():
    """The table's `group=choice` and the conventions beside it."""
    named = re.findall(r"`(aggregator|pre_aggregator|attack)=(\w+)", PAGE)
    assert len(named) > 15
    for group, choice in named:
        assert (EXAMPLES.parent / "conf" / group / f"{choice}.yaml").exists(), choice


def preset(named):
    """The function of ``group=choice key=value``, with what its file and the keys say."""
    (group, name), *keys = (part.split("=") for part in named.split())
    (choice,) = [one for one in choices(group) if one.name == name]
    module, _, function = choice.target.rpartition(".")
    written = {key.name: key.value for key in choice.keys} | dict(keys)
    options = {key.rpartition(".")[2]: yaml.safe_load(value) for key, value in written.items()}
    return partial(getattr(importlib.import_module(module), function), **options)


@pytest.mark.parametrize(
    ("call", "named"),
    re.findall(r"\| `(\w+\([^`]*\))` \| `((?:aggregator|attack)=[^`]*)` \|", PAGE),
)
def test_a_call_of_the_table_is_its_preset(call, named):
    rows = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    knowledge, k = attacks.knowledge_of(rows, 3), 4
    names = {**vars(aggregators), **vars(attacks)}
    local = {"rows": rows, "c": 2, "knowledge": knowledge, "k": k}
    called = eval(call.replace("...", "None"), names, local)
    given = (knowledge,) if named.startswith("attack") else (rows, 2)
    assert torch.equal(called, preset(named.replace("m=k", f"m={k}"))(*given))
