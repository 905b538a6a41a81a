"""End every verb with an exit code, and with one line on stderr if it failed."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps

from byzshield_exp import interrupts
from byzshield_exp.errors import ConfigError, RunError, Stopped, typed
from byzshield_exp.notices import complain

FAILED, BAD_INPUT = 1, 2
STOPPED = 75  # EX_TEMPFAIL: SIGTERM came, a checkpoint was written, try again
INTERRUPTED = 128 + signal.SIGINT
_STDOUT = 1

Verb = Callable[[list[str]], int | None]


def exit_codes(advice: str = "") -> Callable[[Verb], Callable[[list[str]], int]]:
    """Make the ``main(arguments)`` of a verb return its exit code: a decorator.

    0 is done, 1 failed, 2 bad input, 75 stopped (the same command resumes), 130 stopped by Ctrl-C.
    With ``HYDRA_FULL_ERROR=1`` an error is raised, to show its traceback.

    Args:
        advice: what the user may do after Ctrl-C.
    """

    def decorate(main: Verb) -> Callable[[list[str]], int]:
        @wraps(main)
        def wrapped(arguments: list[str]) -> int:
            interrupts.forget()
            try:
                return main(arguments) or 0
            except KeyboardInterrupt:
                _ignore_interrupts()
                complain(f"byzshield_exp: interrupted{advice and f'; {advice}'}")
                return INTERRUPTED
            except Exception as error:
                return _code_of(error)
            finally:
                _close_stdout()

        return wrapped

    return decorate


def _code_of(error: Exception) -> int:
    """Print what went wrong; return the exit code."""
    if isinstance(error, BrokenPipeError) and not _has_reader():
        return 0
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, Stopped):
        raise error
    for kind, code in ((ConfigError, BAD_INPUT), (Stopped, STOPPED), (RunError, FAILED)):
        if isinstance(error, kind):
            if kind is Stopped and interrupts.is_by_ctrl_c():
                _ignore_interrupts()
                code = INTERRUPTED
            complain(f"byzshield_exp: {error}")
            return code
    complain(f"byzshield_exp: {typed(error)}")
    return FAILED


def _has_reader() -> bool:
    """Whether a program still reads stdout: ``head`` may have ended."""
    look = select.poll()
    look.register(_STDOUT, 0)
    return not look.poll(0)  # poll reports only errors


def _close_stdout() -> None:
    """Flush stdout; if nobody reads it, discard the rest, or Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)


def _ignore_interrupts() -> None:
    """Keep a second Ctrl-C from cutting off the last line."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
