"""Where made-up runs came from."""

from optrode.provenance import Provenance


def provenance(random_seed=0):
    """Of a made-up run."""
    date = "2026-01-01T00:00:00+00:00"
    return Provenance("tiny", "0" * 64, random_seed, {"optrode": "0"}, "x86_64, 2 cores", "python run.py", date, 1.0, 16)
