"""The clients that customers have, unmodified: each carries a small file and one sent in parts to the
box, finds both, brings them back the same, and removes them."""

import json
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.request

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

# More than every client sends in one piece when it is told to use its usual part of 8 or 16 MiB.
LARGE = 20 << 20


class Program:
    """A client that is a program, with its settings in its environment and a folder of its own."""

    def __init__(self, box, folder):
        self.box, self.folder = box, folder
        self.bucket = box["bucket"]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": box["access_key"],
            "AWS_SECRET_ACCESS_KEY": box["secret_key"],
            "AWS_REGION": box["region"],
            "AWS_DEFAULT_REGION": box["region"],
            "AWS_ENDPOINT_URL_S3": box["url"],
            "AWS_CA_BUNDLE": box["ca"],
            "S3_ENDPOINT_URL": box["url"],
            "SSL_CERT_FILE": box["ca"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, *command):
        if shutil.which(command[0]) is None:
            pytest.fail(f"{command[0]} is missing; scripts/tools.sh test installs it")
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}: {told}"
        for word in ("corrupt", "mismatch", "MD5 Sums don't match", "checksum"):
            assert word.lower() not in told.lower(), told
        return told if "-v" in command else done.stdout

    def raw(self, *command):
        return subprocess.run(
            command, env=self.environment, capture_output=True, timeout=120, check=True
        ).stdout


class AwsCli(Program):
    def put(self, path, key):
        self.run("aws", "s3", "cp", "--no-progress", str(path), f"s3://{self.bucket}/{key}")

    def get(self, key, path):
        self.run("aws", "s3", "cp", "--no-progress", f"s3://{self.bucket}/{key}", str(path))

    def list(self):
        told = self.run("aws", "s3", "ls", "--recursive", f"s3://{self.bucket}/")
        return [line.split(maxsplit=3)[3] for line in told.splitlines()]

    def remove(self):
        self.run("aws", "s3", "rm", "--recursive", f"s3://{self.bucket}/")

    def api(self, operation, key, *more):
        return self.run("aws", "s3api", operation, "--bucket", self.bucket, "--key", key, *more)

    def range(self, key, first, last, path):
        self.api("get-object", key, "--range", f"bytes={first}-{last}", str(path))

    def size(self, key):
        return int(self.api("head-object", key, "--query", "ContentLength"))

    def copy(self, key, to):
        self.run("aws", "s3", "cp", f"s3://{self.bucket}/{key}", f"s3://{self.bucket}/{to}")

    def presigned(self, key):
        # Version 2 without this.
        self.run("aws", "configure", "set", "default.s3.signature_version", "s3v4")
        return self.run("aws", "s3", "presign", f"s3://{self.bucket}/{key}").strip()

    def sync(self, folder, prefix):
        return self.run("aws", "s3", "sync", "--no-progress", str(folder), f"s3://{self.bucket}/{prefix}")


class Boto3:
    def __init__(self, box, folder):
        self.settings = {
            "endpoint_url": box["url"],
            "region_name": box["region"],
            "aws_access_key_id": box["access_key"],
            "aws_secret_access_key": box["secret_key"],
            "verify": box["ca"],
        }
        self.s3 = boto3.client("s3", **self.settings)
        self.bucket = box["bucket"]

    def put(self, path, key):
        self.s3.upload_file(str(path), self.bucket, key)

    def get(self, key, path):
        self.s3.download_file(self.bucket, key, str(path))

    def list(self):
        return [e["Key"] for e in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def remove(self):
        entries = [{"Key": key} for key in self.list()]
        self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": entries})

    def range(self, key, first, last, path):
        got = self.s3.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={first}-{last}")
        path.write_bytes(got["Body"].read())

    def size(self, key):
        return self.s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"]

    def copy(self, key, to):
        self.s3.copy({"Bucket": self.bucket, "Key": key}, self.bucket, to)

    def presigned(self, key):
        presigner = boto3.client("s3", **self.settings, config=Config(signature_version="s3v4"))
        return presigner.generate_presigned_url("get_object", {"Bucket": self.bucket, "Key": key})


class Rclone(Program):
    def __init__(self, box, folder):
        super().__init__(box, folder)
        settings = {
            "type": "s3",
            "provider": "Other",
            "access_key_id": box["access_key"],
            "secret_access_key": box["secret_key"],
            "region": box["region"],
            "endpoint": box["url"],
            "force_path_style": "true",
            "no_check_bucket": "true",
        }
        for name, value in settings.items():
            self.environment[f"RCLONE_CONFIG_BOX_{name.upper()}"] = value
        self.environment["RCLONE_CA_CERT"] = box["ca"]
        self.environment["RCLONE_S3_UPLOAD_CUTOFF"] = "16M"
        self.remote = f"box:{self.bucket}"

    def put(self, path, key):
        self.run("rclone", "copyto", str(path), f"{self.remote}/{key}")
        self.run("rclone", "check", "--one-way", "--download", str(path), f"{self.remote}/{os.path.dirname(key)}")

    def get(self, key, path):
        self.run("rclone", "copyto", f"{self.remote}/{key}", str(path))

    def list(self):
        return self.run("rclone", "lsf", "-R", "--files-only", self.remote).splitlines()

    def remove(self):
        self.run("rclone", "delete", self.remote)

    def range(self, key, first, last, path):
        span = ["--offset", str(first), "--count", str(last - first + 1)]
        path.write_bytes(self.raw("rclone", "cat", *span, f"{self.remote}/{key}"))

    def size(self, key):
        return json.loads(self.run("rclone", "size", "--json", f"{self.remote}/{key}"))["bytes"]

    def copy(self, key, to):
        self.run("rclone", "copyto", f"{self.remote}/{key}", f"{self.remote}/{to}")

    def presigned(self, key):
        return self.run("rclone", "link", "--expire", "1h", f"{self.remote}/{key}").strip()

    def sync(self, folder, prefix):
        told = self.run("rclone", "sync", "-v", "--use-json-log", str(folder), f"{self.remote}/{prefix}")
        self.run("rclone", "check", "--download", str(folder), f"{self.remote}/{prefix}")
        return "\n".join(line for line in told.splitlines() if "Copied" in line)


class S5cmd(Program):
    def put(self, path, key):
        self.run("s5cmd", "cp", "--part-size", "6", str(path), f"s3://{self.bucket}/{key}")

    def get(self, key, path):
        self.run("s5cmd", "cp", f"s3://{self.bucket}/{key}", str(path))

    def list(self):
        # A pattern that matches nothing is an error to it, and an empty bucket is not.
        if not self.run("s5cmd", "ls", f"s3://{self.bucket}"):
            return []
        told = self.run("s5cmd", "ls", f"s3://{self.bucket}/*")
        return [line.split(maxsplit=3)[3] for line in told.splitlines()]

    def remove(self):
        self.run("s5cmd", "rm", f"s3://{self.bucket}/*")

    # It has no command for a range; it reads large objects by ranges.
    range = None

    def size(self, key):
        return json.loads(self.run("s5cmd", "--json", "head", f"s3://{self.bucket}/{key}"))["size"]

    def copy(self, key, to):
        self.run("s5cmd", "cp", f"s3://{self.bucket}/{key}", f"s3://{self.bucket}/{to}")

    def presigned(self, key):
        return self.run("s5cmd", "presign", f"s3://{self.bucket}/{key}").strip()

    def sync(self, folder, prefix):
        return self.run("s5cmd", "sync", f"{folder}/", f"s3://{self.bucket}/{prefix}/")


class S3cmd(Program):
    def __init__(self, box, folder):
        super().__init__(box, folder)
        host = f"{box['host']}:{box['port']}"
        self.settings = (
            "s3cmd", f"--host={host}", f"--host-bucket={host}", f"--ca-certs={box['ca']}",
            f"--access_key={box['access_key']}", f"--secret_key={box['secret_key']}",
            f"--region={box['region']}", "--no-progress", f"--config={folder}/none",
        )

    def put(self, path, key):
        self.run(*self.settings, "put", str(path), f"s3://{self.bucket}/{key}")

    def get(self, key, path):
        self.run(*self.settings, "get", f"s3://{self.bucket}/{key}", str(path))

    def list(self):
        told = self.run(*self.settings, "ls", "--recursive", f"s3://{self.bucket}")
        return [line.split(f"s3://{self.bucket}/", 1)[1] for line in told.splitlines()]

    def remove(self):
        self.run(*self.settings, "del", "--recursive", "--force", f"s3://{self.bucket}")

    # It has no command for a range; it continues a file that is there in part by one.
    def range(self, key, first, last, path):
        whole = f"{path}.whole"
        with open(whole, "wb") as file:
            file.write(bytes(first))
        self.run(*self.settings, "get", "--continue", f"s3://{self.bucket}/{key}", whole)
        with open(whole, "rb") as file:
            path.write_bytes(file.read()[first : last + 1])

    def size(self, key):
        told = self.run(*self.settings, "info", f"s3://{self.bucket}/{key}")
        return int(re.search(r"File size: +(\d+)", told)[1])

    def copy(self, key, to):
        self.run(*self.settings, "cp", f"s3://{self.bucket}/{key}", f"s3://{self.bucket}/{to}")

    # It signs addresses by version 2 alone.
    presigned = None

    def sync(self, folder, prefix):
        told = self.run(*self.settings, "sync", f"{folder}/", f"s3://{self.bucket}/{prefix}/")
        return "\n".join(line for line in told.splitlines() if line.startswith("upload:"))


@pytest.mark.parametrize("client", [AwsCli, Boto3, Rclone, S5cmd, S3cmd])
def test_a_client_carries_files_there_and_back(s3, box, tmp_path, client):
    client = client(box, tmp_path)
    sizes = {"dir/small ü.txt": 1000, "dir/large.bin": LARGE}
    sent = {}
    for number, (key, size) in enumerate(sizes.items()):
        sent[key] = os.urandom(size)
        path = tmp_path / f"source{number}" / os.path.basename(key)
        path.parent.mkdir()
        path.write_bytes(sent[key])
        client.put(path, key)

    parts = s3.get_object_attributes(
        Bucket=box["bucket"], Key="dir/large.bin", ObjectAttributes=["ObjectParts"]
    )
    assert parts["ObjectParts"]["TotalPartsCount"] > 1
    assert sorted(client.list()) == sorted(sent)
    for number, (key, content) in enumerate(sent.items()):
        back = tmp_path / f"back{number}"
        client.get(key, back)
        assert back.read_bytes() == content, key
    client.remove()
    assert client.list() == []


@pytest.mark.parametrize("client", [AwsCli, Boto3, Rclone, S5cmd, S3cmd])
def test_a_client_looks_reads_a_part_copies_and_presigns(s3, box, tmp_path, client):
    client = client(box, tmp_path)
    content = os.urandom(300_000)
    (tmp_path / "f.bin").write_bytes(content)
    client.put(tmp_path / "f.bin", "d/f.bin")

    assert client.size("d/f.bin") == len(content)
    client.copy("d/f.bin", "copies/g.bin")
    for key in ("d/f.bin", "copies/g.bin"):
        if client.range:
            client.range(key, 1000, 4999, tmp_path / "part")
            assert (tmp_path / "part").read_bytes() == content[1000:5000]
        if client.presigned:
            context = ssl.create_default_context(cafile=box["ca"])
            with urllib.request.urlopen(client.presigned(key), context=context) as answer:
                assert answer.read() == content


@pytest.mark.parametrize("client", [AwsCli, Rclone, S5cmd, S3cmd])
def test_a_second_sync_sends_nothing_and_a_changed_file_alone(s3, box, tmp_path, client):
    client = client(box, tmp_path)
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    for n in range(12):
        path = folder / ("sub" if n % 2 else "") / f"f{n} ü.txt"
        path.write_bytes(os.urandom(100 * n))
        # S3 tells times in whole seconds: what is sent within its own second looks newer than its copy.
        os.utime(path, (time.time() - 60,) * 2)

    assert len(client.sync(folder, "s").splitlines()) == 12
    assert client.sync(folder, "s").split() == []
    (folder / "sub" / "f3 ü.txt").write_bytes(b"changed, and of another length")
    again = client.sync(folder, "s")
    assert len(again.splitlines()) == 1 and "f3" in again
    held = {e["Key"]: e["Size"] for e in s3.list_objects_v2(Bucket=box["bucket"])["Contents"]}
    here = {f"s/{p.relative_to(folder)}": p.stat().st_size for p in folder.rglob("*.txt")}
    assert held == here


@pytest.mark.parametrize("parts", [False, True])
def test_aws_cli_sends_an_archive_as_the_snowball_guide_says(s3, box, tmp_path, parts):
    # `aws s3 cp batch.tar .. --metadata snowball-auto-extract=true`, as on a Snowball Edge.
    import tarfile

    content = {f"x/{n}": os.urandom(LARGE // 2 if parts else 5000) for n in range(3)}
    for name, bytes_ in content.items():
        path = tmp_path / "tar" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_)
    with tarfile.open(tmp_path / "batch.tar", "w") as tar:
        tar.add(tmp_path / "tar", arcname=".")
    aws = AwsCli(box, tmp_path)
    where = f"s3://{box['bucket']}/in/batch.tar"
    aws.run(
        "aws", "s3", "cp", "--no-progress", str(tmp_path / "batch.tar"), where,
        "--metadata", "snowball-auto-extract=true,snowball-ignore-dirs=true",
    )

    held = s3.list_objects_v2(Bucket=box["bucket"])["Contents"]
    assert {e["Key"] for e in held} == {f"in/{name}" for name in content}
    for name, bytes_ in content.items():
        got = s3.get_object(Bucket=box["bucket"], Key=f"in/{name}")["Body"].read()
        assert got == bytes_, name


def test_an_archive_named_as_mc_does_becomes_its_entries(s3, box, tmp_path):
    # minio-go's PutObjectsSnowball: S3's header, and options in its own spelling.
    import io
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a/1", "a/2"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    metadata = {"Snowball-Auto-Extract": "true", "Minio-Snowball-Prefix": "p"}
    s3.put_object(
        Bucket=box["bucket"], Key="snowball.1700000000.tar", Body=file.getvalue(), Metadata=metadata
    )
    held = [e["Key"] for e in s3.list_objects_v2(Bucket=box["bucket"])["Contents"]]
    assert held == ["p/a/1", "p/a/2"]


def test_an_interrupted_upload_goes_on_with_the_parts_that_are_there(s3, box, tmp_path):
    content = os.urandom(LARGE)
    begun = s3.create_multipart_upload(Bucket=box["bucket"], Key="a")["UploadId"]
    ask = {"Bucket": box["bucket"], "Key": "a", "UploadId": begun}
    s3.upload_part(**ask, PartNumber=1, Body=content[: 10 << 20])
    held = s3.list_parts(**ask)["Parts"]
    assert [part["Size"] for part in held] == [10 << 20]
    second = s3.upload_part(**ask, PartNumber=2, Body=content[10 << 20 :])
    parts = [
        {"PartNumber": 1, "ETag": held[0]["ETag"]},
        {"PartNumber": 2, "ETag": second["ETag"]},
    ]
    s3.complete_multipart_upload(**ask, MultipartUpload={"Parts": parts})
    path = tmp_path / "back"
    s3.download_file(box["bucket"], "a", str(path), Config=TransferConfig(multipart_threshold=1 << 20))
    assert path.read_bytes() == content


def test_a_wrong_key_is_told_from_a_wrong_secret(box):
    def code(**pair):
        s3 = boto3.client(
            "s3", endpoint_url=box["url"], region_name=box["region"], verify=box["ca"], **pair
        )
        with pytest.raises(ClientError) as caught:
            s3.list_objects_v2(Bucket=box["bucket"])
        return caught.value.response["Error"]["Code"]

    assert code(aws_access_key_id="NOBODY", aws_secret_access_key="x") == "InvalidAccessKeyId"
    known = box["access_key"]
    assert code(aws_access_key_id=known, aws_secret_access_key="x") == "SignatureDoesNotMatch"
