"""``byzshield list``: every choice is told, by name, in text and in JSON, from anywhere."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from byzshield_exp.commands.list import docstrings, main

CONF = Path(__file__).parents[2] / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
PLURALS = {"approach": "approaches", "adversary": "adversaries"}


@pytest.fixture
def told(capsys, monkeypatch):
    """``told(*arguments) -> (exit code, out, err)``."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments):
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return call


def names(group):
    folder = CONF / group
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def blocks(text):
    """The lines below each name."""
    found = {}
    for line in text.splitlines()[1:]:
        if re.fullmatch(r"[\w/]+", line):
            current = found[line] = []
        elif found and line:
            current.append(line)
    return found


def program(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "byzshield_exp", "list", *arguments],
        capture_output=True, text=True, timeout=60, cwd=cwd, env={**os.environ, **environment},
    )  # fmt: skip


def test_without_a_name_it_lists_the_groups(told):
    code, out, _ = told()
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    assert sorted(rows) == GROUPS
    for group in GROUPS:
        assert int(rows[group][1]) == len(names(group)), group
        assert len(rows[group]) > 3, group  # what it asks
    assert json.loads(told("--json")[1]) == [
        {
            "group": group,
            "choices": len(names(group)),
            "default": None if rows[group][2] == "-" else rows[group][2],
            "line": " ".join(rows[group][3:]),
        }
        for group in rows
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_has_a_line(told, group):
    code, out, _ = told(group)
    assert code == 0
    found = blocks(out)
    assert sorted(found) == names(group)
    for name, lines in found.items():
        assert re.search(r"\w{3}", lines[0]), name
        assert all(re.search(r"\w", line) for line in lines), name
    assert max(map(len, out.splitlines())) <= 100
    assert "``" not in out
    assert told(PLURALS.get(group, group + "s"))[1] == out


@pytest.mark.parametrize("group", ["aggregator", "pre_aggregator", "attack", "approach"])
def test_every_function_has_a_source_and_a_formula(told, group):
    for entry in json.loads(told(group, "--json")[1]):
        assert bool(entry["function"]) == (entry["name"] != "none")
        assert len(entry["source"]) > 5 or not entry["function"], entry["name"]
        if group != "approach":
            assert re.search(r"\by\b|\by_|\brow\b|\bv\b", entry["formula"]) or not entry["function"]
        if group == "attack" and entry["function"]:
            assert entry["knows"], entry["name"]
        if group == "aggregator":
            assert entry["kind"], entry["name"]
            assert "permutation" in entry["properties"] or entry["name"] in (
                "monna",
                "median_of_means",
            )


def test_a_rule_that_refuses_numbers_says_which(told):
    refused = []
    for entry in json.loads(told("aggregators", "--json")[1]):
        module, _, name = entry["function"].rpartition(".")
        try:
            getattr(importlib.import_module(module), name)(torch.ones(4, 3), 4)
        except ValueError:
            refused.append(entry["name"])
            assert entry["precondition"].startswith("needs "), entry["name"]
    assert {"krum", "krum_byzfl", "bulyan", "trimmed_mean", "mda"} <= set(refused)


@pytest.mark.parametrize("group", GROUPS)
def test_json_agrees_with_the_text(told, group):
    found = blocks(told(group)[1])
    entries = json.loads(told(group, "--json")[1])
    assert [entry["name"] for entry in entries] == list(found)
    for entry in entries:
        text = " ".join(" ".join(found[entry["name"]]).split())
        assert entry["line"] in text
        assert entry["source"] in text
        assert entry["precondition"].partition(" ")[2] in text
        for key in entry["parameters"]:
            assert f"{key['name']}={key['value']}" in text
            assert key["comment"] in text
        for implied in entry["implies"]:
            assert implied in text


def test_keys_are_as_they_are_typed(told):
    def typed(group, name):
        (entry,) = json.loads(told(group, name, "--json")[1])
        return {key["name"]: key["value"] for key in entry["parameters"]}, entry["implies"]

    assert typed("aggregator", "krum")[0]["aggregator.neighbours"] == "n-c-2"
    assert typed("aggregator", "median")[0] == {"+aggregator.even": "mean"}
    assert typed("pre_aggregator", "bucketing")[0] == {"pre_aggregator.bucketing.size": "2"}
    assert typed("attack", "majorities_only")[0] == {"attack@attack.attack": "alie"}
    assert typed("approach", "detox") == (
        {"approach.num_workers": "${K}", "approach.replication": "${r}"},
        ["aggregator=median_of_means"],
    )
    assert typed("protocol", "parameter_server")[0] == {}
    assert typed("experiment", "mnist_lenet")[1] == ["dataset=mnist", "network=lenet"]


def test_one_choice_comes_with_its_whole_docstring(told):
    code, out, _ = told("aggregators", "krum_byzfl")
    assert code == 0
    assert out.startswith("krum_byzfl\n  As in ByzFL and ByzPy")
    assert "Of equal\n  scores the row nearer to all others wins" in out


def test_choices_of_your_own(told, monkeypatch):
    monkeypatch.syspath_prepend(CONF.parent / "examples")
    code, out, _ = told("aggregators", "--config-dir", str(CONF.parent / "examples" / "conf"))
    assert code == 0
    found = blocks(out)
    assert sorted(found) == sorted([*names("aggregator"), "near_median"])
    assert found["near_median"][2].split()[0] == "aggregator.radius=0.5"


def test_a_function_that_is_not_there_is_told(told, tmp_path):
    (tmp_path / "vote").mkdir()
    (tmp_path / "vote" / "mine.yaml").write_text("_target_: not_there.mine\n")
    code, out, _ = told("votes", "--config-dir", str(tmp_path))
    assert code == 0
    assert "not_there.mine cannot be imported: No module named" in blocks(out)["mine"][0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("agregators",), "no group 'agregators', .*did you mean 'aggregators'"),
        (("aggregators", "krun"), "aggregator=krun: no such choice, .*did you mean 'krum'"),
        (("nonsense_xyz",), "no group 'nonsense_xyz', there are adversary, "),
    ],
)
def test_unknown_names_are_one_line_and_exit_with_2(told, arguments, line):
    code, out, err = told(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(line, err)


@pytest.mark.slow
def test_it_runs_from_any_folder_without_a_terminal(tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
    done = program("pre-aggregators", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(blocks(done.stdout)) == names("pre_aggregator")
    assert max(map(len, done.stdout.splitlines())) > 80
    narrow = program("pre-aggregators", cwd=tmp_path, COLUMNS="60")
    assert max(map(len, narrow.stdout.splitlines())) <= 60
    assert program("agregator", cwd=tmp_path).returncode == 2
    assert not list(tmp_path.iterdir())


def test_the_groups_need_no_torch():
    """Nothing heavy is imported before a function is asked for its docstring."""
    code = (
        "import sys; from byzshield_exp.commands.list import main; main([]); main(['experiments']);"
        "assert not {'torch', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.slow
def test_a_reader_may_stop_early():
    list_all = f"'{sys.executable}' -m byzshield_exp list aggregators | head -n 1"
    done = subprocess.run(list_all, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("aggregator: ")
    assert done.stderr == ""


def test_sentences_and_sections():
    def function():
        """The best of ``n``. Not more.

        Args:
            one: of ``two``
                lines; see :func:`other`.
            two: short.

        Raises:
            ValueError: unless ``n > 1``.
            OSError: if it rains; often.

        Knows: nothing.

        Source: A. Author et al. Proceedings, 2020. Our own is another.
        """

    assert docstrings.summary(function) == "The best of n."
    assert docstrings.arguments(function) == {"one": "of two lines; see other", "two": "short"}
    assert docstrings.precondition(function) == "needs n > 1; fails if it rains"
    assert docstrings.knows(function) == "nothing"
    assert docstrings.source(function) == "A. Author et al. Proceedings, 2020."


def test_a_class_without_a_docstring_is_not_described_by_its_base():
    own = type("Own", (dict,), {})
    assert docstrings.summary(own) == ""
    own.__doc__ = "Mine. And more."
    assert docstrings.summary(own) == "Mine."
