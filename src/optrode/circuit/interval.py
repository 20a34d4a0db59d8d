"""Bootstrap percentile intervals over prompts."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from optrode.circuit.circuit import Interval

N_BOOTSTRAP: Final = 1000
LEVEL: Final = 95.0
Draws = NDArray[np.int64]


def draws(n: int, random_seed: int, n_bootstrap: int = N_BOOTSTRAP) -> Draws:
    """[bootstrap, prompt] indices of prompts drawn with replacement."""
    return np.random.default_rng(random_seed).integers(0, n, (n_bootstrap, n))


def mean_interval(values: Sequence[float], drawn: Draws) -> Interval:
    """Interval of the mean of [prompt] values."""
    return _interval(np.asarray(values)[drawn].mean(1))


def ratio_interval(part: Sequence[float], empty: Sequence[float], full: Sequence[float], drawn: Draws) -> Interval:
    """Interval of mean(part - empty) / mean(full - empty): a ratio of means, drawn together."""
    p, e, f = (np.asarray(values)[drawn].mean(1) for values in (part, empty, full))
    return _interval((p - e) / (f - e))


def ratio(part: Sequence[float], empty: Sequence[float], full: Sequence[float]) -> float:
    """mean(part - empty) / mean(full - empty)."""
    p, e, f = (float(np.mean(values)) for values in (part, empty, full))
    return (p - e) / (f - e)


def _interval(resampled: NDArray[np.float64]) -> Interval:
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(float(low), float(high))
