"""One box for all tests; each test finds its bucket empty."""

import sys

import pytest

import lan_box

sys.dont_write_bytecode = True


def pytest_ignore_collect(collection_path):
    # A plugin for the public suite, not a test.
    return True if collection_path.name == "public_suite.py" else None


@pytest.fixture(scope="session")
def box():
    with lan_box.running() as about:
        yield about


@pytest.fixture(scope="session")
def _client(box):
    return lan_box.client(box)


@pytest.fixture
def s3(box, _client):
    lan_box.empty(_client, box["bucket"])
    return _client


@pytest.fixture
def bucket(box):
    return box["bucket"]
