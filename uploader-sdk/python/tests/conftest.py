"""A box for the tests: the stand-in from uploader-sdk/examples, one per test."""

import os
import pathlib
import subprocess
from dataclasses import dataclass

import pytest

STAND_IN = os.environ.get("LONGHAUL_TEST_BOX")


@dataclass
class Box:
    ticket: pathlib.Path
    url: str
    objects: pathlib.Path


@pytest.fixture
def box(tmp_path, monkeypatch):
    assert STAND_IN, "LONGHAUL_TEST_BOX must name the built example test_box (see scripts/python.sh)"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = subprocess.Popen(
        [STAND_IN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lines = [process.stdout.readline().strip() for _ in range(3)]
    yield Box(pathlib.Path(lines[0]), lines[1], pathlib.Path(lines[2]))
    process.stdin.close()
    process.wait(timeout=20)
    process.stdout.close()
