"""A trace of a few steps by torch's profiler, for TensorBoard's profile page."""

from pathlib import Path

import torch

from byzshield_exp.notices import warn


def start_trace(folder: Path) -> torch.profiler.profile:
    """Trace steps 3 to 5 of this process into a folder; call ``step()`` after each step."""
    write = torch.profiler.tensorboard_trace_handler(str(folder))

    def try_to_write(profile: torch.profiler.profile) -> None:
        try:
            write(profile)
        except (OSError, RuntimeError) as error:
            warn(f"the profile could not be written ({error})")

    profile = torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=try_to_write,
        acc_events=True,  # some releases of torch warn without it, though there is one cycle
    )
    profile.start()
    return profile
