"""What holds in every test: fixed seeds, no network, and uninitialised memory full of NaN."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _deterministic():
    """Deterministic algorithms also fill `torch.empty` with NaN, so that a value never written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
