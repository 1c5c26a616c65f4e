"""A box's LAN side as a process: the built example `lan_box`, and clients for it."""

import contextlib
import json
import os
import subprocess

import boto3
from botocore.config import Config


@contextlib.contextmanager
def running(*arguments):
    """Starts a box; yields what it says of itself, and stops it in the end."""
    program = os.environ.get("LONGHAUL_LAN_BOX")
    assert program, "LONGHAUL_LAN_BOX must name the built example lan_box (see scripts/s3.sh)"
    process = subprocess.Popen(
        [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def client(box, access_key=None, **config):
    """A boto3 client that tries nothing twice, so that a test sees the first answer."""
    config.setdefault("retries", {"max_attempts": 1})
    s3 = {"addressing_style": "path", **config.pop("s3", {})}
    return boto3.client(
        "s3",
        endpoint_url=box["url"],
        region_name=box["region"],
        aws_access_key_id=access_key or box["access_key"],
        aws_secret_access_key=box["secret_key"],
        verify=box["ca"],
        config=Config(s3=s3, signature_version="s3v4", **config),
    )


def empty(s3, bucket):
    """Removes every object and every open upload."""
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            s3.abort_multipart_upload(
                Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
