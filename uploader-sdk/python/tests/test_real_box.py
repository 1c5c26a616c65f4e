"""The package against a box's real intake, and receipts without anybody's help."""

import asyncio
import os
import pathlib
import shutil
import subprocess

import longhaul
import longhaul.aio
import pytest


NOBODY = "https://127.0.0.1:1"


def make_folder(root):
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"a")
    (root / "sub" / "b").write_bytes(os.urandom(100_000))
    (root / "large").write_bytes(os.urandom(20 * 1024 * 1024 + 1))
    return root


def test_a_real_box_is_synced_listed_fetched_and_emptied(real_box, tmp_path):
    root = make_folder(tmp_path / "source")
    done = longhaul.sync([root], prefix="p", **real_box)
    assert done.is_complete and done.push.bytes_sent == done.push.bytes
    assert longhaul.sync(root, prefix="p", **real_box).push.bytes_sent == 0
    assert [(o.key, o.delivery) for o in longhaul.ls("p/", **real_box)] == [
        ("p/a", "on_box"), ("p/large", "on_box"), ("p/sub/b", "on_box"),
    ]

    (root / "A").write_bytes(b"A")
    pushed = longhaul.push(root / "A", prefix="p", **real_box)
    assert "upper and lower case" in pushed.files[0].notice
    assert done.push.files[0].notice is None

    got = longhaul.get("p", tmp_path / "back", **real_box)
    assert {f.verified_by for f in got.files} <= {"blake3", "crc64nvme"} and got.is_complete
    for file in got.files:
        there = tmp_path / "back" / file.key.removeprefix("p/")
        assert there.read_bytes() == (root / file.key.removeprefix("p/")).read_bytes()
    (root / "a").write_bytes(b"changed here")
    again = longhaul.get("p", root, **real_box)
    assert again.bytes_received == 1, "one is fetched again, the others are compared"

    status = longhaul.status(**real_box)
    assert status.objects == status.pending_objects == 4
    assert longhaul.rm("p/", **real_box).failed == []
    assert longhaul.ls(**real_box) == []


@pytest.mark.parametrize(
    "form, script",
    [
        ("", 'eval "$SETTINGS"; aws s3 cp f "s3://$LONGHAUL_BUCKET/x/f"'),
        ("--s5cmd", 'eval "$SETTINGS"; s5cmd cp f "s3://$LONGHAUL_BUCKET/x/f"'),
        ("--rclone", 'echo "$SETTINGS" >c; rclone --config c --ca-cert "$CA" copyto f longhaul:haul/x/f'),
        ("--s3cmd", 'echo "$SETTINGS" >c; s3cmd -c c put f s3://haul/x/f'),
        ("--boto3", 'python3 -c "$SETTINGS\ns3.upload_file(\'f\', \'haul\', \'x/f\')"'),
    ],
)
def test_each_client_works_with_the_settings_that_are_printed(real_box, tmp_path, form, script):
    cli = pathlib.Path(os.environ["LONGHAUL_CLI"])
    client = script.split("; ")[-1].split()[0]
    assert shutil.which(client), f"no {client} here; scripts/tools.sh test installs it"
    where = [f"--ticket={real_box['ticket']}", f"--box={real_box['box']}"]
    told = subprocess.run(
        [cli, "s3-env", *where, *filter(None, [form])], capture_output=True, text=True, check=True
    )
    (tmp_path / "f").write_bytes(os.urandom(100_000))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SETTINGS": told.stdout,
        "CA": str(next((tmp_path / "state" / "longhaul").glob("*-ca.pem"))),
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    done = subprocess.run(
        ["bash", "-euc", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stdout + done.stderr
    longhaul.get("x/f", tmp_path / "back", **real_box)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "f").read_bytes()


def test_waiting_for_the_cloud_ends_when_it_is_stopped(real_box, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ValueError, match="dry run"):
        longhaul.sync(tmp_path / "f", wait=True, dry_run=True, **real_box)

    async def story():
        waiting = asyncio.create_task(
            longhaul.aio.sync(tmp_path / "f", wait=True, **real_box)
        )
        # This box has no cloud: it would wait for ever.
        while not await longhaul.aio.ls(**real_box):
            assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(story())


def test_a_sync_waits_until_everything_is_verified(box, tmp_path):
    root = make_folder(tmp_path / "source")

    done = longhaul.sync(root, wait=True, ticket=box.ticket, box=box.url)

    assert {file.delivery for file in done.push.files} == {"verified"}


def test_receipts_prove_a_folder_and_name_what_is_wrong(kept):
    def files(report):
        return [(os.path.basename(f.path), f.verdict) for f in report.files]

    how = {"receipt": kept / "receipts", "prefix": "run"}
    whole = longhaul.verify(kept / "folder", root=kept / "root.pem", **how)
    assert whole.holds and (whole.receipts, whole.in_cloud) == (3, 2)
    assert files(whole) == [("a.csv", "same"), ("b.csv", "same"), ("c.csv", "not_in_cloud")]
    assert not longhaul.verify(
        kept / "folder", root=kept / "root.pem", delivered=True, **how
    ).holds
    assert longhaul.verify(kept / "receipts", ticket=kept / "ticket.json").holds

    (kept / "folder" / "a.csv").write_bytes(b"onf")
    (kept / "folder" / "sub" / "b.csv").unlink()
    found = asyncio.run(
        longhaul.aio.verify(kept / "folder", ticket=kept / "ticket.json", **how)
    )
    assert not found.holds
    assert files(found)[:2] == [("a.csv", "changed"), ("b.csv", "missing")]

    with pytest.raises(longhaul.ReceiptError, match="line 1 of .* is a receipt of box"):
        longhaul.verify(kept / "others", ticket=kept / "ticket.json")
    forged = (kept / "receipts").read_text().replace('"bytes":3', '"bytes":4', 1)
    (kept / "forged").write_text(forged)
    with pytest.raises(longhaul.ReceiptError, match="line 1 of .* does not hold"):
        longhaul.verify(kept / "forged", root=kept / "root.pem")


def test_receipts_that_cannot_be_fetched_say_why_and_leave_no_file(kept, tmp_path, monkeypatch):
    monkeypatch.delenv("LONGHAUL_TICKET", raising=False)
    with pytest.raises(longhaul.ReceiptError, match="say which ticket or token"):
        longhaul.receipt(tmp_path / "r")
    with pytest.raises(ValueError, match="token"):
        longhaul.receipt(tmp_path / "r", ticket=kept / "ticket.json", bucket="other")

    # The ticket has ended; its receipts are asked for all the same, and nobody is there.
    for cloud in (None, "https://127.0.0.1:1"):
        with pytest.raises(longhaul.ReceiptError, match="could not be asked"):
            asyncio.run(
                longhaul.aio.receipt(
                    tmp_path / "r", ticket=kept / "ticket.json", cloud=cloud, box=NOBODY
                )
            )
    assert not list(tmp_path.glob("r*"))


def test_receipts_come_through_the_box_where_the_cloud_is_out_of_reach(passing_on, kept, tmp_path):
    for cloud in (None, NOBODY):
        out = tmp_path / "r"
        assert longhaul.receipt(out, cloud=cloud, **passing_on) == 3
        assert out.read_text().splitlines() == (kept / "receipts").read_text().splitlines()
        assert longhaul.verify(out, root=kept / "root.pem").in_cloud == 2
        out.unlink()

    # Who brings a token asks the cloud alone.
    with pytest.raises(longhaul.ReceiptError, match="could not be asked"):
        longhaul.receipt(out, cloud=NOBODY, token="t", bucket="b", **passing_on)
