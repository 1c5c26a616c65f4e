import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import longhaul
import pytest

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "push.py"


def make_folder(root, files=20):
    root.mkdir()
    for n in range(files):
        (root / f"f{n}").write_bytes(os.urandom(1000 + n))
    (root / "sub").mkdir()
    (root / "sub" / "large").write_bytes(os.urandom(20 * 1024 * 1024 + 1))
    return root


def test_a_folder_arrives_and_the_report_says_so(box, tmp_path):
    root = make_folder(tmp_path / "source")
    seen = []

    report = longhaul.push(
        root, ticket=box.ticket, box=box.url, prefix="p", wait=True, on_progress=seen.append
    )

    assert report.is_complete and report.failed == [] and report.skipped == []
    assert len(report.files) == 21
    for file in report.files:
        assert (box.objects / file.key).read_bytes() == pathlib.Path(file.path).read_bytes()
        assert file.delivery == "verified"
        assert len(file.blake3) == 64
    assert seen[-1].files_on_box == seen[-1].files_in_cloud == 21
    assert seen[-1].bytes_on_box == report.bytes == report.bytes_sent


def test_a_second_push_sends_nothing(box, tmp_path):
    root = make_folder(tmp_path / "source", files=3)
    longhaul.push([root], ticket=box.ticket, box=box.url)

    again = longhaul.push([str(root)], ticket=str(box.ticket), box=box.url)

    assert again.bytes_sent == 0
    assert {file.outcome for file in again.files} == {"already_there"}


def test_each_failure_has_its_exception(box, tmp_path):
    file = tmp_path / "f"
    file.write_text("x")
    expired = json.loads(box.ticket.read_text()) | {"expires": 1}
    (tmp_path / "old.json").write_text(json.dumps(expired))

    with pytest.raises(longhaul.TicketError, match="expired at 1970-01-01"):
        longhaul.push(file, ticket=tmp_path / "old.json")
    with pytest.raises(longhaul.TicketError, match="LONGHAUL_TICKET"):
        longhaul.push(file)
    with pytest.raises(longhaul.NoBoxError, match="127.0.0.1:1"):
        longhaul.push(file, ticket=box.ticket, box="https://127.0.0.1:1")
    with pytest.raises(FileNotFoundError, match="/no/such/file"):
        longhaul.push("/no/such/file", ticket=box.ticket, box=box.url)
    with pytest.raises(ValueError, match="only https"):
        longhaul.push(file, ticket=box.ticket, box="http://127.0.0.1")
    with pytest.raises(TypeError):
        longhaul.push(7, ticket=box.ticket)
    wrong = json.loads(box.ticket.read_text()) | {"secret_key": "wrong"}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    with pytest.raises(longhaul.PushError, match="ask whoever sent the box for a new one") as caught:
        longhaul.push(file, ticket=tmp_path / "wrong.json", box=box.url)
    assert caught.value.report.files == []
    assert issubclass(longhaul.PushError, longhaul.LonghaulError)


def test_other_threads_run_and_what_the_callback_raises_ends_the_push(box, tmp_path):
    root = make_folder(tmp_path / "source")
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.wait(0.001):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    longhaul.push(root, ticket=box.ticket, box=box.url)
    stop.set()
    thread.join()
    assert len(ticks) > 5

    def refuse(progress):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        longhaul.push(root, ticket=box.ticket, box=box.url, on_progress=refuse)


def test_ctrl_c_interrupts_a_push_to_a_box_that_does_not_answer(box, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        # Whoever runs the tests in the background may have made them deaf to it.
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        code += f"import longhaul; longhaul.push({str(EXAMPLE)!r}, ticket={str(box.ticket)!r}, box='https://127.0.0.1:{port}')"
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        silent.settimeout(20)
        connection, _ = silent.accept()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        connection.close()

    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - began < 3


def test_the_example_script_pushes_what_it_is_given(box, tmp_path):
    root = make_folder(tmp_path / "source", files=4)
    environment = {**os.environ, "LONGHAUL_TICKET": str(box.ticket)}

    # The ticket carries the address, so the script needs no more.
    done = subprocess.run(
        [sys.executable, EXAMPLE, root],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 files, ")
    assert (box.objects / "sub" / "large").stat().st_size == 20 * 1024 * 1024 + 1


def test_finding_boxes_returns_a_list():
    assert isinstance(longhaul.find(listen=0.2), list)
    with pytest.raises(ValueError, match="listen"):
        longhaul.find(listen=float("nan"))
