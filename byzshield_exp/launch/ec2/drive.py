"""Run the jobs of a sweep on a fleet: one thread per gang; a lost gang is replaced."""

import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType

from byzshield_exp.errors import RunError, Stopped
from byzshield_exp.launch.ec2.cloud import NoAnswer, NoCapacity, aws_errors
from byzshield_exp.launch.ec2.fleet import Lost, down, end_gang, new_gang, save_anyway
from byzshield_exp.launch.ec2.hosts import Unreachable
from byzshield_exp.launch.ec2.resources import Control, ensure_network
from byzshield_exp.launch.ec2.runs import do
from byzshield_exp.launch.ec2.state import GangState, JobState
from byzshield_exp.notices import warn

_SIGNAL_CHECK_S = 1.0


class _Signalled(BaseException):
    """A signal came. No ``Exception``: botocore would take it for a fault and call again."""


def drive(control: Control) -> None:
    """Run all waiting jobs, then end the fleet, whatever happens.

    Raises:
        Stopped: at SIGTERM or SIGHUP, after running jobs have made a checkpoint.
        RunError: if a limit is reached, or AWS refuses.
    """
    with ending_the_fleet(control):
        with aws_errors():
            ensure_network(control)
        _run_all(control)


@contextmanager
def ending_the_fleet(control: Control, only_after_errors: bool = False) -> Iterator[None]:
    """End everything of the fleet after the block, also after SIGTERM, SIGHUP and Ctrl-C.

    Args:
        control: of the fleet.
        only_after_errors: leave the fleet up when the block succeeds.
    """
    went_well = False
    with _raise_first_signal() as ignore:
        try:
            try:
                yield
                went_well = True
            finally:
                ignore()
        finally:
            if not (went_well and only_after_errors):
                _end_fleet(control)


def _end_fleet(control: Control) -> None:
    name = control.state.options.name
    try:
        down(control)
    except BaseException:
        folder = control.store.folder.parent.parent
        where = shlex.join([f"name={name}", f"output_dir={folder}"])
        warn(f"the fleet {control.state.fleet} may still run: byzshield ec2 down {where}")
        raise


@contextmanager
def _raise_first_signal() -> Iterator[Callable[[], None]]:
    """Raise an exception at the first SIGTERM, SIGHUP or Ctrl-C; ignore further ones.

    Yields a function; once it is called, the first one is ignored too. Outside the main thread it
    does nothing, because Python sets handlers only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    is_handled = [False]

    def handle(number: int, frame: FrameType | None) -> None:
        if not is_handled[0]:
            is_handled[0] = True
            warn("stopping: jobs make a checkpoint, then the instances are ended")
            raise (
                KeyboardInterrupt
                if number == signal.SIGINT
                else _Signalled(signal.Signals(number).name)
            )

    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # set by nohup
        numbers.remove(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: is_handled.__setitem__(0, True)
    except _Signalled as error:
        raise Stopped(f"stopped by {error}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_all(control: Control) -> None:
    """Run the jobs on ``options.gangs`` gangs; an exception in one stops them all."""
    gangs = control.state.options.gangs
    slots: list[GangState | None] = [*_adopt_gangs(control), *[None] * gangs]
    stop = threading.Event()
    with ThreadPoolExecutor(gangs) as pool:
        served, went_well = list[Future[None]](), False
        try:
            for slot in slots[:gangs]:
                served.append(pool.submit(_run_jobs, control, slot, stop))
            done = set[Future[None]]()
            while len(done) < len(served) and not any(future.exception() for future in done):
                # With a timeout: the handler of a signal runs only when this thread wakes up.
                done, _ = wait(served, _SIGNAL_CHECK_S, FIRST_EXCEPTION)
            went_well = not any(future.exception() for future in done)
        finally:
            if not went_well:
                stop.set()
    errors = [error for future in served if (error := future.exception()) is not None]
    if errors:  # report the cause; the other gangs only stopped
        raise min(errors, key=lambda error: isinstance(error, Stopped))


def _adopt_gangs(control: Control) -> list[GangState]:
    """Return an earlier driver's gangs that can go on; end the others, requeue their jobs."""
    jobs, kept = control.state.jobs, list[GangState]()
    running = {job.path for job in jobs if job.phase == "running"}
    for gang in control.state.gangs:
        is_of_use = gang.phase not in ("ending", "ended") and gang.job in {None, *running}
        if is_of_use and len(kept) < control.state.options.gangs:
            kept.append(gang)
        else:
            end_gang(control, gang)
    held = {gang.job for gang in kept}
    for job in jobs:
        if job.phase == "running" and job.path not in held:
            job.phase = "waiting"
    control.save()
    return kept


def _run_jobs(control: Control, gang: GangState | None, stop: threading.Event) -> None:
    """Run jobs one after the other, on one gang at a time."""
    options = control.state.options
    try:
        while not stop.is_set() and (job := _next_job(control, gang)) is not None:
            try:
                gang = gang or new_gang(control)
                do(control, gang, job, stop)
            except (NoCapacity, NoAnswer, Lost, Unreachable) as error:
                _release_gang(control, gang)
                gang = None
                if _requeue_or_fail(control, job, error):
                    stop.wait(options.retry_s)
            except BaseException:
                _requeue(control, job)
                raise
            if not options.reuse:
                _release_gang(control, gang)
                gang = None
    finally:
        _release_gang(control, gang)


def _release_gang(control: Control, gang: GangState | None) -> None:
    if gang is not None:
        end_gang(control, gang)


def _next_job(control: Control, gang: GangState | None) -> JobState | None:
    """Return the job that a gang already runs, or the next waiting one."""
    with control.store.lock:
        if gang is not None and gang.job is not None:
            for job in control.state.jobs:
                if job.path == gang.job and job.phase == "running":
                    return job
        for job in control.state.jobs:
            if job.phase == "waiting":
                job.phase, job.attempts, job.error = "running", job.attempts + 1, None
                control.save()
                return job
    return None


def _requeue_or_fail(control: Control, job: JobState, error: RunError) -> bool:
    """Requeue a job whose gang was lost, or give it up; return whether it was requeued.

    Raises:
        NoCapacity: if its last attempt found no capacity: other jobs would find none either.
    """
    is_over = job.attempts >= control.state.options.max_attempts
    end = f"given up after {job.attempts} attempts" if is_over else "another attempt follows"
    warn(f"{job.name}: {error}; {end}")
    with control.store.lock:
        is_hopeless = is_over and isinstance(error, NoCapacity)
        job.phase = "failed" if is_over and not is_hopeless else "waiting"
        job.error = str(error)
        control.save()
    if is_hopeless:
        raise error
    return not is_over


def _requeue(control: Control, job: JobState) -> None:
    with control.store.lock:
        job.phase = "waiting"
        save_anyway(control)
