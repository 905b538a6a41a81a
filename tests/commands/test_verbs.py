"""The verbs: how one is found, and how all of them end."""

import os
import signal
import subprocess
import sys
from importlib import import_module, metadata

import pytest

from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.commands.verbs import VERBS, dispatch
from byzshield_exp.errors import ConfigError, RunError, Stopped

VERSION = f"byzshield_exp {metadata.version('byzshield_exp')}\n"
FORMS = {"byzshield": None, "python -m byzshield_exp": "run"}


@pytest.fixture
def typed(capsys, monkeypatch):
    """``typed(*arguments, default=None) -> (exit code, out, err)``."""
    monkeypatch.setattr(sys, "argv", ["byzshield"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*arguments, default=None):
        return dispatch(list(arguments), default), *capsys.readouterr()

    return call


@pytest.fixture
def restored_interrupts():
    """What a test does to Ctrl-C is over with it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_the_program_alone_lists_the_verbs(typed, arguments):
    code, out, err = typed(*arguments)
    assert (code, err) == (0, "")
    for verb, line in VERBS.items():
        assert f"\n  {verb} " in out
        assert f" {line}\n" in out


@pytest.mark.parametrize("default", FORMS.values(), ids=FORMS)
def test_a_wrong_verb_says_which_are_near(typed, default):
    code, out, err = typed("evalute", "run=a", default=default)
    assert (code, out) == (2, "")
    assert err.startswith("byzshield_exp: evalute: no such verb, there are run, list, doctor")
    assert err.endswith("; did you mean 'evaluate'?\n")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "said"),
    {
        "aggregator": "aggregator is a group of choices: byzshield list aggregator",
        "attacks": "attacks is a group of choices: byzshield list attacks",
        "steps": "steps is a key: byzshield run steps=300",
        "optimizer.lr": "optimizer.lr is a key: byzshield run optimizer.lr=0.05",
        "krum": "krum is a choice of aggregator: byzshield run aggregator=krum",
        "reprot": "did you mean 'report'?",
    }.items(),
)
def test_a_key_a_group_or_a_choice_is_no_verb(typed, word, said):
    code, out, err = typed(word)
    assert (code, out) == (2, "")
    assert err.endswith(f", completion; {said}\n")


@pytest.mark.parametrize("default", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("before", [(), ("run",), ("list",)])
def test_the_version(typed, default, before):
    assert typed(*before, "--version", default=default) == (0, VERSION, "")


@pytest.mark.parametrize("argument", ["attack=alie", "-m", "~attack", "+a=b"])
def test_a_run_without_its_verb_is_not_guessed(typed, argument):
    code, out, err = typed(argument, "q=2")
    assert (code, out) == (2, "")
    assert err == f"byzshield_exp: no verb is given: byzshield run {argument} q=2 is a run\n"


def test_the_module_without_a_verb_runs(typed):
    code, out, err = typed("K=16", default="run")
    assert (code, out) == (2, "")
    assert "nearest are K=15" in err


@pytest.mark.parametrize("arguments", [("evalute",), ("--version",), ("run", "--help"), ("-h",)])
def test_under_torchrun_rank_0_alone_speaks(typed, monkeypatch, arguments):
    monkeypatch.setenv("RANK", "1")
    assert typed(*arguments, default="run") == (0, "", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help(typed, verb):
    code, out, err = typed(verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"``byzshield {verb}")
    assert typed(verb, "-h") == (0, out, "")


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_does_not_know_is_one_line(typed, verb):
    code, out, err = typed(verb, "no_such_key=1")
    assert (code, out) == (2, "")
    assert err.startswith("byzshield_exp: ")
    assert "no_such_key" in err
    assert len(err.splitlines()) == 1


class Interrupting:
    """A terminal whose user presses Ctrl-C at the first word."""

    def write(self, text):
        raise KeyboardInterrupt

    def flush(self):
        pass


@pytest.mark.usefixtures("restored_interrupts")
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_ends_with_130_at_ctrl_c(verb, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Interrupting())
        assert import_module(f"byzshield_exp.commands.{verb}").main(["--help"]) == 130
    err = capsys.readouterr().err
    assert err.startswith("byzshield_exp: interrupted")
    assert len(err.splitlines()) == 1


ENDS = {
    "done": (None, 0, ""),
    "bad input": (ConfigError("q=-1 must be at least 0"), 2, "q=-1 must be at least 0"),
    "failed": (RunError("rank 3 is gone"), 1, "rank 3 is gone"),
    "stopped": (Stopped("stopped by SIGTERM"), 75, "stopped by SIGTERM"),
    "not foreseen": (KeyError("a"), 1, "KeyError: 'a'"),
    "of several lines": (RuntimeError("a product\nof shapes"), 1, "RuntimeError: a product"),
    "of a socket": (BrokenPipeError(32, "Broken pipe"), 1, "BrokenPipeError: [Errno 32] Broken"),
}


@pytest.mark.parametrize(("error", "code", "line"), ENDS.values(), ids=ENDS)
def test_errors_have_exit_codes(error, code, line, capsys, monkeypatch):
    @exit_codes()
    def main(arguments):
        if error is not None:
            raise error

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert main([]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"byzshield_exp: {line}" if line else "")
    assert len(err.splitlines()) == (error is not None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    if code in (1, 2):
        with pytest.raises(type(error)):
            main([])
    else:
        assert main([]) == code


@pytest.mark.parametrize(
    "arguments",
    [
        "run --help",
        "run --cfg job",
        pytest.param("list aggregators", marks=pytest.mark.slow),
        pytest.param("distortion q=0-15", marks=pytest.mark.slow),
    ],
)
def test_a_reader_may_stop_early(arguments):
    command = f"set -o pipefail; '{sys.executable}' -m byzshield_exp {arguments} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("arguments", ["run -sc install=bash", "run --info plugins"])
def test_a_reader_may_be_gone(arguments):
    """A pipe without a reader: also Hydra, which logs its answers, ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "byzshield_exp", *arguments.split()],
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=100,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_and_completion_import_nothing_slow():
    code = (
        "import sys; from importlib import import_module\n"
        "from byzshield_exp.commands.verbs import VERBS, dispatch\n"
        "for verb in VERBS:\n"
        "    assert dispatch([verb, '--help']) == 0\n"
        "    list(import_module(f'byzshield_exp.commands.{verb}').words([]))\n"
        "slow = {'torch', 'hydra', 'omegaconf', 'numpy', 'scipy', 'boto3', 'torchvision'}\n"
        "sys.exit(str(slow & set(sys.modules)) if slow & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env={**os.environ, "RANK": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
