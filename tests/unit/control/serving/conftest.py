"""A server over the tiny model, shared by tests that leave it as it was."""

import httpx
import pytest

from optrode.control.serving.server import Server
from tests.unit.control.serving.samples import FUNCTIONS, chatty


@pytest.fixture(scope="session")
def server():
    with Server(chatty(), FUNCTIONS, port=0, name="tiny") as running:
        yield running


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=30) as found:
        yield found
