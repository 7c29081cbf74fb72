"""The API as a process, and keys of shops that may do everything, for what holds answers to the document."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.integration.api.server import Server, make_shop_key, running


@pytest.fixture(scope="module")
def new_key(database_url: str) -> Callable[[], str]:
    """Makes a shop and gives its key, which may do everything."""
    return lambda: asyncio.run(make_shop_key(database_url))


@pytest.fixture(scope="module")
def key(new_key: Callable[[], str]) -> str:
    """The key of one such shop."""
    return new_key()


@pytest.fixture(scope="module")
def server(database_url: str, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running API; the shop of `key` came first, and with it what makes a server ready."""
    with running(database_url, tmp_path_factory.mktemp("api")) as started:
        yield started
