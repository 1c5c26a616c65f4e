"""The clients that customers have, unmodified: each carries a small file and one sent in parts to the
box, finds both, brings them back the same, and removes them."""

import os
import shutil
import subprocess

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
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
        return done.stdout


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


class Boto3:
    def __init__(self, box, folder):
        self.s3 = boto3.client(
            "s3",
            endpoint_url=box["url"],
            region_name=box["region"],
            aws_access_key_id=box["access_key"],
            aws_secret_access_key=box["secret_key"],
            verify=box["ca"],
        )
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
