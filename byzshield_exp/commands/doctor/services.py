"""Slurm and AWS, where they are set up."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from byzshield_exp.commands.doctor.finding import Finding, worst
from byzshield_exp.errors import first_line

_SLURM_S = 5.0
_QUOTAS = {
    "standard on demand": "L-1216C47A",
    "standard spot": "L-34B43A08",
    "G and VT on demand": "L-DB2E81BA",
    "G and VT spot": "L-3819A6DF",
    "P on demand": "L-417A185B",
    "P spot": "L-7212CCBC",
}
_KEYS = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ENDPOINT_URL",
)  # fmt: skip


def slurm() -> Finding:
    """Check whether the controller answers and accounting works."""
    if shutil.which("sinfo") is None:
        return Finding("slurm", "ok", "not installed here")
    code, partitions = _asked("sinfo", "-h", "-o", "%P %D %T")
    if code != 0:
        return _no_controller(partitions)
    found = [" ".join(line.split()) for line in partitions.splitlines()]
    said = [f"partitions: {', '.join(found) or 'none'}"]
    notes = list[str]()
    problems = [] if found else ["no partition: nothing can be submitted"]
    code, answer = _asked("sacct", "-n", "-X", "-S", "now", "-o", "jobid")
    if code == 0:
        said.append("accounting works")
    else:
        said.append(f"sacct: {answer}")
        notes.append("sweeps do without accounting; sacct, which says how a job ended, does not")
    return worst("slurm", said, notes, problems)


def _no_controller(answer: str) -> Finding:
    files = [Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")), Path("/run/slurm/conf")]
    if not any(path.exists() for path in files) and "SLURM_CONF" not in os.environ:
        said = "the commands are here, but no slurm.conf"
        return Finding("slurm", "note", said, "set SLURM_CONF, or go to a node of the cluster")
    advice = "start slurmctld, or ask who runs it; sinfo must answer"
    return Finding("slurm", "problem", f"sinfo: {answer}", advice)


def _asked(*command: str) -> tuple[int, str]:
    """Run a command: its exit code and its output, or the first line of its error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SLURM_S)
    except subprocess.TimeoutExpired:
        return 1, f"no answer in {_SLURM_S:.0f} s"
    except OSError as error:
        return 1, error.strerror or str(error)
    if done.returncode == 0:
        return 0, done.stdout
    lines = (done.stderr or done.stdout).strip().splitlines()
    return done.returncode, lines[0] if lines else f"exit code {done.returncode}"


def aws() -> Finding:
    """Ask AWS for the identity of the user; keys are neither asked for nor shown."""
    if not _is_configured():
        return Finding("aws", "ok", "no credentials: nobody was asked")
    session = _session()
    region = session.get_config_variable("region")
    if region is None:
        return Finding("aws", "problem", "there is no region", "set AWS_REGION")
    if session.get_credentials() is None:
        return Finding("aws", "note", f"{region}, no credentials", "aws configure, or AWS_PROFILE")
    try:
        who = _client(session, "sts").get_caller_identity()
    except Exception as error:
        advice = "aws sts get-caller-identity; renew the credentials, or look at the network"
        return Finding("aws", "problem", f"{region}, sts: {_reason(error)}", advice)
    return Finding("aws", "ok", f"{region}, account {who['Account']}, {who['Arn']}")


def quotas() -> Finding:
    """Read how many virtual cores may run in EC2; a quota that cannot be read is only a note."""
    if not _is_configured():
        return Finding("quotas", "ok", "no credentials: nobody was asked")
    session = _session()
    if session.get_config_variable("region") is None or session.get_credentials() is None:
        return Finding("quotas", "ok", "nobody was asked")
    client = _client(session, "service-quotas")
    found: dict[str, float] = {}
    try:
        for name, code in _QUOTAS.items():
            answer = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)
            found[name] = answer["Quota"]["Value"]
    except Exception as error:
        advice = "servicequotas:GetServiceQuota must be allowed; a run needs enough EC2 vCPUs"
        return Finding("quotas", "note", f"cannot be read: {_reason(error)}", advice)
    said = ", ".join(f"{name} {value:g}" for name, value in found.items())
    notes = [] if all(found.values()) else ["ask for more of those that are 0 before using them"]
    return worst("quotas", [f"vCPUs in EC2: {said}"], notes, [])


def _is_configured() -> bool:
    """Whether AWS is set up here, by a user or because this is a machine of EC2."""
    home = Path.home() / ".aws"
    files = [
        Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials")),
        Path(os.environ.get("AWS_CONFIG_FILE", home / "config")),
    ]
    is_set = any(os.environ.get(name) for name in _KEYS)
    return is_set or any(path.is_file() for path in files) or _is_in_ec2()


def _is_in_ec2() -> bool:
    try:
        return Path("/sys/class/dmi/id/sys_vendor").read_text().strip() == "Amazon EC2"
    except OSError:
        return False


def _session() -> Any:
    """Open a session, which looks for the role of the machine only on EC2."""
    from botocore.session import Session

    session = Session()
    if "AWS_REGION" in os.environ:  # botocore itself reads AWS_DEFAULT_REGION only
        session.set_config_variable("region", os.environ["AWS_REGION"])
    if not _is_in_ec2():
        session.get_component("credential_provider").remove("iam-role")
    return session


def _client(session: Any, service: str) -> Any:
    from botocore.config import Config

    patience = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 1})
    return session.create_client(service, config=patience)


def _reason(error: Exception) -> str:
    """Return AWS's error code, since its messages may hold key names, or another error's line."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", type(error).__name__))
    return f"{type(error).__name__}: {first_line(error)}"
