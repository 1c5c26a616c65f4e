"""A box for the tests: the stand-in from uploader-sdk/examples, one per test."""

import json
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


def lan_box(*options):
    """A box's real intake and vault, without a cloud behind it; ends with the generator."""
    program = os.environ.get("LONGHAUL_LAN_BOX")
    assert program, "LONGHAUL_LAN_BOX must name the built example lan_box (see scripts/python.sh)"
    process = subprocess.Popen(
        [program, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    about = json.loads(process.stdout.readline())
    yield {"ticket": pathlib.Path(about["ticket"]), "box": about["url"]}
    process.stdin.close()
    process.wait(timeout=20)
    process.stdout.close()


@pytest.fixture
def real_box(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield from lan_box()


@pytest.fixture
def passing_on(kept, tmp_path, monkeypatch):
    """A box that passes on the receipts of the kept folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield from lan_box("--receipts", kept / "receipts", "--root", kept / "root.pem")


@pytest.fixture
def kept(tmp_path):
    """A folder with its receipts, the root, and a ticket that has ended."""
    program = os.environ.get("LONGHAUL_KEPT_FOLDER")
    assert program, "LONGHAUL_KEPT_FOLDER must name the built example kept_folder (see scripts/python.sh)"
    subprocess.run([program, tmp_path / "kept"], check=True)
    return tmp_path / "kept"


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
