"""What a rank says of itself before the first step."""

from hashlib import sha256

from byzshield_exp.clusters.fingerprint import bit_entries, host_name
from byzshield_exp.clusters.introduction import DATA, HOST, Introduction
from byzshield_exp.rows.digests import DIGEST_BYTES
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.votes import is_exact

_DATA_DIGITS = 16  # of the digest of the data, where a person reads it


def introduction(experiment: Experiment, truth: TrueGradients, plays: bool) -> Introduction:
    """A digest of the data and, where replicas must be equal, of file 0's gradient; and the host.

    Args:
        experiment: the parts.
        truth: of this process, before the first step.
        plays: whether this process plays workers; else it computes nothing.
    """
    digest, data = bytes(DIGEST_BYTES), experiment.dataset.digest
    if plays:
        row = _first_row(truth) if is_exact(experiment.vote) else b""
        digest = sha256(row + data).digest()
    entries = {
        HOST: host_name(),
        DATA: data.hex()[:_DATA_DIGITS],
        "precision": truth.precision,
        **bit_entries(experiment.params.device.type),
    }
    return Introduction(digest, entries)


def _first_row(truth: TrueGradients) -> bytes:
    truth.begin(0)
    row = truth.message(0).joined.cpu().numpy().tobytes()
    truth.num_computed = 0
    return row
