"""Lets the public suite (ceph/s3-tests) run against a box: a pytest plugin.

The suite makes a bucket for every test. A ticket opens one bucket, which exists from the beginning
and cannot be removed, so each test is given that one, emptied before and after. Nothing else of the
suite is touched.
"""

import configparser
import os
import pathlib
import tempfile

import pytest

import lan_box

HERE = pathlib.Path(__file__).parent


def selected():
    """The tests that concern what a box does, by name."""
    lines = (HERE / "public_suite.txt").read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines} - {""}


def settings(box):
    """The suite's configuration; its accounts for other features are never used."""
    config = configparser.RawConfigParser()
    config["DEFAULT"] = {
        "host": box["host"],
        "port": str(box["port"]),
        "is_secure": "True",
        "ssl_verify": "False",
    }
    account = {
        "display_name": "longhaul",
        "user_id": "longhaul",
        "email": "nobody@example.com",
        "api_name": "",
        "access_key": box["access_key"],
        "secret_key": box["secret_key"],
    }
    config["s3 main"] = account
    other = {**account, "access_key": box["other_access_key"]}
    for section in ("s3 alt", "s3 tenant", "iam", "iam root", "iam alt root"):
        config[section] = other
    config["s3 tenant"]["tenant"] = "none"
    return config


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    box = config.stash[BOX] = lan_box.running("--capacity", str(8 << 30))
    about = box.__enter__()
    folder = tempfile.TemporaryDirectory()
    config.stash[FOLDER] = folder
    path = pathlib.Path(folder.name) / "s3tests.conf"
    with path.open("w") as file:
        settings(about).write(file)
    os.environ["S3TEST_CONF"] = str(path)
    _give_the_tickets_buckets(about)


def pytest_unconfigure(config):
    if box := config.stash.get(BOX, None):
        box.__exit__(None, None, None)
    if folder := config.stash.get(FOLDER, None):
        folder.cleanup()


def pytest_collection_modifyitems(config, items):
    if os.environ.get("LONGHAUL_S3_TESTS_ALL"):
        return
    wanted = selected()
    # A name stands for all of its cases, a name with a case for that one.
    keep = [item for item in items if wanted & {item.originalname, item.name}]
    config.hook.pytest_deselected(items=[item for item in items if item not in keep])
    items[:] = keep


BOX = pytest.StashKey()
FOLDER = pytest.StashKey()


def _give_the_tickets_buckets(box):
    import s3tests.functional as suite

    buckets = {
        box["access_key"]: box["bucket"],
        box["other_access_key"]: box["other_bucket"],
    }

    def bucket_of(client):
        credentials = client._request_signer._credentials
        return buckets[credentials.access_key]

    def get_new_bucket(client=None, name=None):
        return bucket_of(client or suite.get_client())

    def get_new_bucket_resource(name=None):
        session = suite.boto3.resource(
            "s3",
            aws_access_key_id=suite.config.main_access_key,
            aws_secret_access_key=suite.config.main_secret_key,
            endpoint_url=suite.config.default_endpoint,
            verify=suite.config.default_ssl_verify,
        )
        return session.Bucket(box["bucket"])

    # Clients of our own for cleaning up: tests bend theirs, and making one takes long.
    cleaners = [lan_box.client(box), lan_box.client(box, box["other_access_key"])]

    def nuke_prefixed_buckets(prefix, client=None):
        for cleaner in cleaners if client is None else ():
            lan_box.empty(cleaner, bucket_of(cleaner))

    # The suite looks for roles and the like after every test; a box has none to look for.
    def get_iam_client(*_, **__):
        raise NotImplementedError("the box has no accounts")

    # Asked for before and after every test, and never used.
    suite.setup = suite.teardown = lambda: nuke_prefixed_buckets(None)
    suite.get_iam_client = get_iam_client
    suite.get_new_bucket_name = lambda: box["bucket"]
    suite.get_new_bucket = get_new_bucket
    suite.get_new_bucket_resource = get_new_bucket_resource
    suite.nuke_prefixed_buckets = nuke_prefixed_buckets
