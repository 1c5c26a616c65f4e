import asyncio
import os
import pathlib
import shutil
import subprocess
import sys

import longhaul
import longhaul.aio
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


@pytest.fixture
def place(box):
    return {"ticket": box.ticket, "box": box.url}


def make_folder(root):
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"a")
    (root / "sub" / "b").write_bytes(os.urandom(100_000))
    return root


def test_what_is_synced_is_listed_fetched_and_removed(box, place, tmp_path):
    root = make_folder(tmp_path / "source")

    dry = longhaul.sync(root, dry_run=True, **place)
    assert [file.key for file in dry.would_send] == ["a", "sub/b"]
    assert longhaul.ls(**place) == []

    done = longhaul.sync(root, **place)
    assert done.is_complete and done.would_send is None
    assert done.push.bytes_sent == 100_001
    listed = longhaul.ls("sub/", **place)
    assert [(o.key, o.size, o.delivery) for o in listed] == [("sub/b", 100_000, "verified")]

    (root / "a").unlink()
    done = longhaul.sync(root, delete=True, **place)
    assert done.removed == ["a"] and done.push.bytes_sent == 0

    got = longhaul.get("sub", tmp_path / "to", **place)
    assert got.is_complete and got.files[0].verified_by == "crc64nvme"
    assert (tmp_path / "to" / "b").read_bytes() == (root / "sub" / "b").read_bytes()

    report = longhaul.rm(["sub/", "gone"], **place)
    assert report.removed == ["sub/b"]
    assert [failed.key for failed in report.failed] == ["gone"]
    with pytest.raises(longhaul.GetError, match="sub/b") as caught:
        longhaul.get("sub/b", tmp_path / "to", **place)
    assert caught.value.report is None


def test_a_box_says_how_it_is(box, place):
    status = longhaul.status(**place)
    assert box.url.endswith(status.address)
    assert status.pending_objects == 0

    diagnosis = longhaul.doctor(**place)
    assert diagnosis.is_well
    assert [check.name for check in diagnosis.checks] == ["ticket", "TCP", "TLS", "key", "box"]


def test_asyncio_calls_run_side_by_side_and_can_be_cancelled(box, place, tmp_path):
    root = make_folder(tmp_path / "source")

    async def story():
        seen = []
        pushed, status = await asyncio.gather(
            longhaul.aio.push(root, on_progress=seen.append, **place),
            longhaul.aio.status(**place),
        )
        assert pushed.is_complete and status.box_id == pushed.box_id
        got = await longhaul.aio.get("a", tmp_path / "copy", **place)
        assert got.files[0].size == 1
        assert seen[-1].files_on_box == 2

        # Nobody answers at this address, so the call would last as long as its patience.
        silent = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        task = asyncio.create_task(
            longhaul.aio.ls(ticket=box.ticket, box=f"https://127.0.0.1:{port}")
        )
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        silent.close()

    asyncio.run(story())
    assert (tmp_path / "copy").read_bytes() == b"a"


def run(command, box, tmp_path, **more):
    # The command line that the bash example and the settings need, from the same build.
    tools = pathlib.Path(os.environ["LONGHAUL_CLI"]).parent
    environment = {
        **os.environ,
        "LONGHAUL_TICKET": str(box.ticket),
        "LONGHAUL_BOX": box.url,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        **more,
    }
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_ten_line_script_waits_for_the_cloud(box, tmp_path):
    root = make_folder(tmp_path / "source")

    said = run([sys.executable, EXAMPLES / "ten_lines.py", root], box, tmp_path)

    assert "2 files" in said
    assert (box.objects / "a").read_bytes() == b"a"


def test_the_bash_script_pushes_waits_and_fetches_back(box, tmp_path):
    root = make_folder(tmp_path / "source")

    said = run(["bash", EXAMPLES / "nightly.sh", root], box, tmp_path)

    assert "2 files verified in the cloud" in said
    assert (box.objects / "nightly" / "a").read_bytes() == b"a"


def test_boto3_works_with_the_settings_that_are_printed(box, tmp_path):
    pytest.importorskip("boto3")
    settings = run(["longhaul", "s3-env", "--boto3"], box, tmp_path)
    (tmp_path / "f").write_bytes(b"by boto3")
    bucket = box.objects.name
    code = f"{settings}\ns3.upload_file('f', {bucket!r}, 'boto/f')\n"

    run([sys.executable, "-c", code], box, tmp_path)

    assert (box.objects / "boto" / "f").read_bytes() == b"by boto3"


def test_rclone_works_with_the_settings_that_are_printed(box, tmp_path):
    assert shutil.which("rclone"), "no rclone here; scripts/tools.sh test installs it"
    settings = run(["longhaul", "s3-env", "--rclone"], box, tmp_path)
    (tmp_path / "rclone.conf").write_text(settings)
    root = make_folder(tmp_path / "source")
    ca = next((tmp_path / "state" / "longhaul").glob("*-ca.pem"))
    rclone = ["rclone", "--config", tmp_path / "rclone.conf", "--ca-cert", ca]

    run([*rclone, "copy", root, f"longhaul:{box.objects.name}/r"], box, tmp_path)

    run([*rclone, "check", "--download", root, f"longhaul:{box.objects.name}/r"], box, tmp_path)
    for name in ["a", "sub/b"]:
        assert (box.objects / "r" / name).read_bytes() == (root / name).read_bytes()
