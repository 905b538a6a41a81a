"""Rules without Hydra: what they take, what help and type checkers see of them."""

import inspect
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch

import byzshield_exp
from byzshield_exp import aggregators
from byzshield_exp.aggregators.rule import rule_traits

ALL = {
    name: function
    for name in aggregators.__all__
    if rule_traits(function := getattr(aggregators, name)).kind
}


@pytest.mark.parametrize("name", ALL)
def test_a_tensor_an_array_and_a_list_of_them_are_the_same_rows(name):
    rows = torch.randn(9, 6, generator=torch.Generator().manual_seed(3))
    given = (rows.numpy(), list(rows), list(rows.numpy()), tuple(rows))
    results = [ALL[name](again, 1) for again in (rows, *given)]
    if rule_traits(ALL[name]).kind == "mixing":
        assert {left for _, left in results} == {results[0][1]}
        results = [mixed for mixed, _ in results]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "got none"),
        ([torch.zeros(2), torch.zeros(3)], r"got \[2\] torch.float32, \[3\] torch.float32"),
        ([torch.zeros(2), torch.zeros(2).double()], r"\[2\] torch.float32, \[2\] torch.float64"),
        (["a"], "rows: "),
        (np.array([["a"]]), "rows: "),
        (np.zeros((5, 2), dtype=int), "floating point"),
    ],
)
def test_what_cannot_be_rows_is_said_in_one_line(rows, said):
    with pytest.raises(ValueError, match=said) as error:
        aggregators.krum(rows, 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["krum", "nnm"])
def test_a_missing_argument_is_said_with_the_name_of_the_rule(name):
    with pytest.raises(TypeError, match=rf"^{name}\(\) missing a required argument: 'num_corrupt'"):
        ALL[name](torch.zeros(4, 3))


@pytest.mark.parametrize("name", ALL)
def test_help_shows_rows(name):
    shown = str(inspect.signature(ALL[name]))
    assert shown.startswith("(rows: jaxtyping.Float[Tensor, 'n d'], num_corrupt: int")
    mixed = rule_traits(ALL[name]).kind == "mixing"
    assert shown.endswith(
        "-> tuple[jaxtyping.Float[Tensor, 'm d'], int]"
        if mixed
        else "-> jaxtyping.Float[Tensor, 'd']"
    )


def test_the_version_is_written_once():
    assert byzshield_exp.__version__ == metadata.version("byzshield_exp")


USER = """
import numpy as np
import torch
from byzshield_exp.aggregators import krum, mean, nnm, trimmed_mean
from byzshield_exp.assignments import Assignment, mols
from byzshield_exp.attacks import Knowledge, alie, knowledge_of
from byzshield_exp.distortion import worst_case
from byzshield_exp.results import load
from byzshield_exp.votes import is_finite, majority, winners

rows = torch.zeros(5, 4)
a: torch.Tensor = krum(rows, 1)
krum(rows=rows, num_corrupt=1, neighbours=2)
krum([rows[0], rows[1]], num_corrupt=1)
trimmed_mean(np.zeros((3, 4)), 1)
mean(rows)
nnm(rows, 1)[0].sum()
forged: torch.Tensor = alie(knowledge_of(rows, num_byzantine=1), z=1.0)
placement: Assignment = mols(15, 3)
count: int = worst_case(placement, 3).count
labels: torch.Tensor = majority([[rows[0], None]])
places: torch.Tensor = winners(labels, is_finite([[rows[0], None]], labels), 1)
names: list[str] = list(load("outputs").runs.columns)

def drift(knowledge: Knowledge, scale: float = 3.0) -> torch.Tensor:
    return scale * knowledge.own_rows() + knowledge.honest_mean()

"""
WRONG = (
    "krum(rows, 1, neighbors=2)", "krum('rows', 1)", "krum(rows)", "mean(rows) + 'a'",
    "alie(rows)", "knowledge_of(rows)", "mols('15', 3)", "majority(3)", "load(3)",
    "load('outputs').run", "drift(3)",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_see_the_rules(tmp_path, checker):
    program = shutil.which(checker) or shutil.which(checker, path=f"{sys.exec_prefix}/bin")
    if program is None:
        pytest.skip(f"{checker} is not installed")
    file = tmp_path / "user.py"
    file.write_text(USER + "\n".join(WRONG))
    cache = str(tmp_path / "cache")
    options = {
        "mypy": ["--strict", "--cache-dir", cache],
        "pyright": ["--pythonpath", sys.executable],
    }[checker]
    done = subprocess.run(
        [program, *options, str(file)], capture_output=True, text=True, cwd=tmp_path
    )
    lines = {line.split(":")[1] for line in done.stdout.splitlines() if " error: " in line}
    first = USER.count("\n") + 1
    assert lines == {str(first + number) for number in range(len(WRONG))}, done.stdout
