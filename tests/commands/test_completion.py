"""Tab completion: what is offered, and that a real shell takes it."""

import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from byzshield_exp.commands.choices import paths
from byzshield_exp.commands.completion.answers import answers
from byzshield_exp.commands.prepare import _DATASETS
from byzshield_exp.commands.verbs import VERBS
from byzshield_exp.datasets.official import OFFICIAL

SCRIPTS = Path(__file__).parents[2] / "byzshield_exp" / "commands" / "completion"
CONF = Path(__file__).parents[2] / "examples" / "conf"

OFFERED = {
    "byzshield ": sorted(VERBS),
    "byzshield r": ["report", "reproduce", "run"],
    "byzshield reproduce fig1": ["fig10", "fig11", "fig12"],
    "byzshield report outputs f": ["formats="],
    "byzshield --": ["--help", "--version"],
    "byzshield nonsense ": [],
    "byzshield run at": ["attack="],
    "byzshield run attack=reversed": ["attack=reversed_gradient"],
    "byzshield run attack=alie,rev": ["attack=alie,reversed_gradient"],
    "byzshield run attack=none att": [],
    "byzshield run pre_aggregator=[arc,nn": ["pre_aggregator=[arc,nnm"],
    "byzshield run attack.": ["attack.z="],
    "byzshield run attack=gaussian attack.": ["attack.mean=", "attack.std="],
    "byzshield run attack=majorities_only attack@attack.attack=gaussian_": [
        "attack@attack.attack=gaussian_noise"
    ],
    "byzshield run st": ["steps="],
    "byzshield run steps=": [],
    "byzshield run device=": ["device=cpu", "device=cuda"],
    "byzshield run profile=": ["profile=false", "profile=metrics", "profile=true"],
    "byzshield run cluster.majority_of=p": ["cluster.majority_of=present"],
    "byzshield run optimizer.nest": ["optimizer.nesterov="],
    "byzshield run optimizer.nesterov=": ["optimizer.nesterov=false", "optimizer.nesterov=true"],
    "byzshield run experiment=detox/a": ["experiment=detox/alie"],
    "byzshield run hydra/launcher=byzshield_s": ["hydra/launcher=byzshield_slurm"],
    f"byzshield run --config-dir {CONF} attack=dr": ["attack=drift"],
    "byzshield run 'attack=al": [],
    "byzshield list ag": ["aggregator"],
    "byzshield list approaches m": ["maj_vote", "mols"],
    "byzshield list --c": ["--config-dir"],
    "byzshield distortion approach=mo": ["approach=mols"],
    "byzshield distortion rec": ["recommend"],
    "byzshield distortion K=15 format=m": ["format=markdown"],
    "byzshield evaluate run=a f": ["follow="],
    "byzshield doctor ": ["dataset.root=", "output_dir="],
    "byzshield ec2 down ": ["efs=", "name=", "output_dir="],
    "byzshield ec2 up reuse=": ["reuse=false", "reuse=true"],
    "byzshield job ": [],
    "byzshield completion ": ["bash", "zsh"],
}  # fmt: skip


@pytest.mark.parametrize(("line", "offered"), OFFERED.items(), ids=OFFERED)
def test_what_is_offered(line, offered):
    assert answers(line) == offered


def test_all_choices_of_a_group_are_offered():
    for line in ("byzshield run approach=", "byzshield distortion approach="):
        assert answers(line) == sorted(f"approach={name}" for name in paths("approach"))
    assert answers("byzshield list attack ") == sorted(paths("attack"))


def test_the_data_sets_that_are_fetched_are_offered():
    assert sorted(_DATASETS) == sorted(OFFICIAL)


@pytest.fixture
def path_with_byzshield(tmp_path):
    """PATH with a program ``byzshield``, which may not be installed where the tests run."""
    program = tmp_path / "bin" / "byzshield"
    program.parent.mkdir()
    main = "from byzshield_exp.__main__ import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{main}" "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["byzshield", "run", "attack", "=", "reversed"], ["reversed_gradient"]),
        (["byzshield", "run", "cluster", "="], ["local", "processes"]),
        (["byzshield", "run", "atta"], ["attack="]),
        (["byzshield", "job", ""], []),
    ],
)
def test_bash_is_given_what_follows_its_last_word_break(path_with_byzshield, words, offered):
    script = f"""
        source <(byzshield completion bash)
        complete -p byzshield
        COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
        COMP_LINE={shlex.quote(" ".join(words).replace(" = ", "=").replace(" =", "="))}
        COMP_POINT=${{#COMP_LINE}}
        _byzshield byzshield
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": path_with_byzshield},
    )  # fmt: skip
    assert done.stderr == ""
    first, *found = done.stdout.splitlines()
    assert first == "complete -o default -F _byzshield byzshield"
    assert [word for word in found if word] == offered


def screen_after(shell, keys, expected, path):
    """What a terminal with a shell shows once ``expected`` is there, or after a minute."""
    ours, terminal = os.openpty()
    started = subprocess.Popen(
        shell, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        env={**os.environ, "PATH": path, "TERM": "dumb"},
    )  # fmt: skip
    os.write(ours, keys.encode())
    shown, deadline = b"", time.monotonic() + 60
    while expected not in shown.decode(errors="replace") and time.monotonic() < deadline:
        if select.select([ours], [], [], 1)[0]:
            shown += os.read(ours, 4096)
    started.kill()
    started.wait()
    os.close(terminal)
    os.close(ours)
    return shown.decode(errors="replace")


SHELLS = {
    "bash": (["bash", "--norc", "-i"], "source <(byzshield completion bash)\n"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit && compinit -u -D && source <(byzshield completion zsh)\n",
    ),
}


@pytest.mark.parametrize("name", SHELLS)
def test_tab_in_a_real_shell(name, path_with_byzshield):
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    shell, setup = SHELLS[name]
    keys = f"{setup}byzshield run att\trever\t"
    shown = screen_after(shell, keys, "attack=reversed_gradient", path_with_byzshield)
    assert "attack=reversed_gradient" in shown


def test_the_scripts_are_what_is_printed(path_with_byzshield):
    for shell in ("bash", "zsh"):
        done = subprocess.run(
            [path_with_byzshield.partition(":")[0] + "/byzshield", "completion", shell],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout == (SCRIPTS / f"byzshield.{shell}").read_text()
