"""What S3 clients rely on, asked of a box in our own words; docs/s3.md lists what is in and out."""

import base64
import binascii
import concurrent.futures
import contextlib
import datetime
import hashlib
import http.client
import io
import json
import os
import re
import tarfile
import time
import urllib.request
from email.header import decode_header, make_header
import ssl
import zlib

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

import lan_box

MIB = 1 << 20


def refused(call, **arguments):
    """The status and the code of an error."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def put(s3, bucket, *keys, body=b"x"):
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=body)


def body(s3, bucket, key, **arguments):
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


def keys(answer):
    return [entry["Key"] for entry in answer.get("Contents", [])]


def prefixes(answer):
    return [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])]


def upload(s3, bucket, key, parts, **arguments):
    """A multipart upload that is not completed: its id and its parts as completion wants them."""
    begun = s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        answer = s3.upload_part(
            Bucket=bucket, Key=key, UploadId=begun, PartNumber=number, Body=part,
            **({"ChecksumAlgorithm": arguments["ChecksumAlgorithm"]} if "ChecksumAlgorithm" in arguments else {}),
        )
        sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        sums.pop("ChecksumCRC64NVME", None) if "ChecksumAlgorithm" in arguments else None
        done.append({"PartNumber": number, "ETag": answer["ETag"], **sums})
    return begun, done


def complete(s3, bucket, key, begun, parts, **arguments):
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=begun, MultipartUpload={"Parts": parts}, **arguments
    )


# Listing


@pytest.mark.parametrize("version", [1, 2])
def test_a_delimiter_rolls_names_up_into_prefixes(s3, bucket, version):
    put(s3, bucket, "a", "d/1", "d/2", "d/e/3", "f/4", "g")
    list_ = s3.list_objects if version == 1 else s3.list_objects_v2

    answer = list_(Bucket=bucket, Delimiter="/")
    assert (keys(answer), prefixes(answer)) == (["a", "g"], ["d/", "f/"])
    answer = list_(Bucket=bucket, Delimiter="/", Prefix="d/")
    assert (keys(answer), prefixes(answer)) == (["d/1", "d/2"], ["d/e/"])
    answer = list_(Bucket=bucket, Delimiter="e", Prefix="d")
    assert (keys(answer), prefixes(answer)) == (["d/1", "d/2"], ["d/e"])
    answer = list_(Bucket=bucket, Prefix="nothing")
    assert (keys(answer), prefixes(answer)) == ([], [])


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_any_size_add_up_to_the_whole(s3, bucket, version):
    put(s3, bucket, *(f"k{n}" for n in range(5)), "p/1", "p/2", "q/1", "z")
    pager = s3.get_paginator("list_objects" if version == 1 else "list_objects_v2")
    for size in (1, 2, 3, 1000):
        seen = []
        pages = pager.paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size})
        for page in pages:
            names = keys(page) + prefixes(page)
            assert len(names) <= size
            seen += names
        assert sorted(seen) == ["k0", "k1", "k2", "k3", "k4", "p/", "q/", "z"], size


def test_a_listing_begins_behind_its_marker_and_max_keys_may_be_zero(s3, bucket):
    put(s3, bucket, "a", "b", "c")

    assert keys(s3.list_objects(Bucket=bucket, Marker="b")) == ["c"]
    assert keys(s3.list_objects(Bucket=bucket, Marker="aa")) == ["b", "c"]
    assert keys(s3.list_objects_v2(Bucket=bucket, StartAfter="zzz")) == []
    none = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert (keys(none), none["IsTruncated"], none["KeyCount"]) == ([], False, 0)
    status, _ = refused(s3.list_objects, Bucket=bucket, MaxKeys=-1)
    assert status == 400


def test_names_that_xml_cannot_hold_plainly_are_encoded_on_request(s3, bucket):
    odd = ["ä ö+&<%>", "a?b=c#d", "quote'\"", "日本/語"]
    put(s3, bucket, *odd)

    assert keys(s3.list_objects_v2(Bucket=bucket)) == sorted(odd)
    raw = s3.list_objects_v2(Bucket=bucket, EncodingType="url")
    assert raw["EncodingType"] == "url"
    for key in odd:
        assert body(s3, bucket, key) == b"x"


def test_the_owner_is_told_to_those_who_ask(s3, bucket):
    put(s3, bucket, "a")

    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    asked = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]
    assert asked["Owner"]["ID"] == s3.list_buckets()["Owner"]["ID"]


def test_every_object_has_one_version_called_null(s3, bucket):
    put(s3, bucket, "a", "b", "d/c")

    first = s3.list_object_versions(Bucket=bucket, MaxKeys=2)
    assert [(v["Key"], v["VersionId"], v["IsLatest"]) for v in first["Versions"]] == [
        ("a", "null", True),
        ("b", "null", True),
    ]
    rest = s3.list_object_versions(Bucket=bucket, KeyMarker=first["NextKeyMarker"])
    assert [v["Key"] for v in rest["Versions"]] == ["d/c"]
    assert prefixes(s3.list_object_versions(Bucket=bucket, Delimiter="/")) == ["d/"]
    assert body(s3, bucket, "a", VersionId="null") == b"x"
    s3.delete_object(Bucket=bucket, Key="a", VersionId="null")
    assert refused(s3.head_object, Bucket=bucket, Key="a")[0] == 404


# Buckets


def test_the_tickets_bucket_is_there_and_no_other(s3, box, bucket):
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [bucket]
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == box["region"]
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert refused(s3.head_bucket, Bucket=box["other_bucket"])[0] == 403
    assert refused(s3.put_object, Bucket=box["other_bucket"], Key="a") == (403, "AccessDenied")


def test_a_bucket_with_objects_is_not_removed(s3, bucket):
    put(s3, bucket, "a")
    assert refused(s3.delete_bucket, Bucket=bucket) == (409, "BucketNotEmpty")
    s3.delete_object(Bucket=bucket, Key="a")
    s3.delete_bucket(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)


# Objects


def test_what_a_client_says_about_an_object_comes_back(s3, bucket):
    expires = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    said = {
        "ContentType": "text/x-odd",
        "CacheControl": "max-age=7",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "Metadata": {"camera": "7", "empty": ""},
    }
    s3.put_object(Bucket=bucket, Key="a", Body=b"x", Expires=expires, **said)

    for copy in ("a", "b"):
        if copy == "b":
            s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a")
        head = s3.head_object(Bucket=bucket, Key=copy)
        assert {name: head[name] for name in said} == said
        assert head["ExpiresString"] == "Wed, 02 Jan 2030 03:04:05 GMT"


def test_more_metadata_than_a_bucket_holds_is_refused(s3, bucket):
    put_ = {"Bucket": bucket, "Key": "a", "Metadata": {"m": "x" * 2048}}
    assert refused(s3.put_object, **put_) == (400, "MetadataTooLarge")
    assert refused(s3.create_multipart_upload, **put_) == (400, "MetadataTooLarge")


@pytest.mark.parametrize(
    "asked",
    [
        {"Tagging": "a=b"},
        {"ServerSideEncryption": "aws:kms"},
        {"ObjectLockLegalHoldStatus": "ON"},
        {"WebsiteRedirectLocation": "/x"},
    ],
)
def test_what_the_box_cannot_do_is_refused_by_name(s3, bucket, asked):
    assert refused(s3.put_object, Bucket=bucket, Key="a", **asked) == (501, "NotImplemented")


def notice(answer):
    return answer["ResponseMetadata"]["HTTPHeaders"].get("x-longhaul-notice")


def test_a_storage_class_is_the_orders_and_an_unknown_one_a_mistake(s3, bucket):
    put_ = {"Bucket": bucket, "Key": "a"}
    assert notice(s3.put_object(**put_, StorageClass="STANDARD")) is None
    for call in (s3.put_object, s3.create_multipart_upload):
        assert "GLACIER_IR is not kept" in notice(call(**put_, StorageClass="GLACIER_IR"))
        assert refused(call, **put_, StorageClass="COLDEST") == (400, "InvalidStorageClass")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == "STANDARD"


def with_headers(s3, operation, **headers):
    """What `operation` sends is given more headers before it is signed."""

    def add(params, **_):
        params["headers"].update(headers)

    s3.meta.events.register_first(f"before-call.s3.{operation}", add, unique_id="more")
    return lambda: s3.meta.events.unregister(f"before-call.s3.{operation}", unique_id="more")


def put_raw(box, path, headers, unsigned=None):
    """A signed PUT whose headers are sent as UTF-8, which boto3 does not do."""
    headers = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", **headers}
    request = AWSRequest("PUT", box["url"] + path, data=b"x", headers=headers)
    pair = Credentials(box["access_key"], box["secret_key"])
    S3SigV4Auth(pair, "s3", box["region"]).add_auth(request)
    context = ssl.create_default_context(cafile=box["ca"])
    with contextlib.closing(
        http.client.HTTPSConnection(box["host"], box["port"], context=context)
    ) as connection:
        raw = {name: value.encode() for name, value in request.headers.items()}
        connection.request("PUT", path, body=b"x", headers={**raw, **(unsigned or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_metadata_beyond_ascii_travels_in_encoded_words(s3, box, bucket):
    for said in ("Grün, 日本語", "=?UTF-8?Q?Gr=C3=BCn,_?= =?UTF-8?B?5pel5pys6Kqe?="):
        assert put_raw(box, f"/{bucket}/a", {"x-amz-meta-place": said})[0] == 200
        held = s3.head_object(Bucket=bucket, Key="a")["Metadata"]["place"]
        assert str(make_header(decode_header(held))) == "Grün, 日本語"
        assert held.isascii(), "every bucket and every proxy can carry it"
    status, document = put_raw(box, f"/{bucket}/a", {}, {"x-amz-meta-place": b"\xfc"})
    assert status == 400 and b"is not UTF-8" in document


def test_a_request_may_be_dated_by_date_alone(s3, bucket):
    # boto3 then signs by it, and sends no X-Amz-Date.
    end = with_headers(s3, "PutObject", Date="now")
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    end()
    assert body(s3, bucket, "a") == b"x"


def test_every_answer_has_an_id_and_errors_say_it_too(s3, box, bucket):
    put_ = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ResponseMetadata"]
    again = s3.head_object(Bucket=bucket, Key="a")["ResponseMetadata"]
    assert re.fullmatch("[0-9A-F]{16}", put_["RequestId"])
    assert put_["RequestId"] != again["RequestId"] and put_["HostId"] == again["HostId"]
    for url in (f"{box['url']}/{bucket}/none", f"{box['url']}/longhaul/v1/packs/{bucket}"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(box, url, *(["POST", b""] if "packs" in url else []))
        id = caught.value.headers["x-amz-request-id"]
        assert re.fullmatch("[0-9A-F]{16}", id)
        if "packs" not in url:
            document = caught.value.read().decode()
            assert f"<RequestId>{id}</RequestId>" in document
            assert f"<HostId>{caught.value.headers['x-amz-id-2']}</HostId>" in document


def test_access_lists_are_refused_unless_they_say_what_holds_anyway(s3, bucket):
    for harmless in ("private", "bucket-owner-full-control"):
        s3.put_object(Bucket=bucket, Key="a", ACL=harmless)
    got = refused(s3.put_object, Bucket=bucket, Key="a", ACL="public-read")
    assert got == (400, "AccessControlListNotSupported")


def test_an_etag_never_looks_like_an_md5(s3, bucket):
    put_ = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    begun, parts = upload(s3, bucket, "b", [b"y"])
    joined = complete(s3, bucket, "b", begun, parts)["ETag"]
    for etag in (put_, parts[0]["ETag"], joined):
        assert re.fullmatch(r'"[0-9a-f]+-\d+"', etag), etag


def test_ranges_are_cut_as_http_says(s3, bucket):
    put(s3, bucket, "a", body=b"0123456789")
    for asked, expected in [("2-4", b"234"), ("7-", b"789"), ("-3", b"789"), ("8-99", b"89")]:
        answer = s3.get_object(Bucket=bucket, Key="a", Range=f"bytes={asked}")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert answer["Body"].read() == expected
    assert refused(s3.get_object, Bucket=bucket, Key="a", Range="bytes=10-")[0] == 416


def test_conditions_of_get_hold_or_say_so(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    ask = {"Bucket": bucket, "Key": "a"}
    past, future = datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1)
    for call in (s3.get_object, s3.head_object):
        call(**ask, IfMatch=etag)
        call(**ask, IfNoneMatch='"other"')
        call(**ask, IfModifiedSince=past)
        call(**ask, IfUnmodifiedSince=future)
        assert refused(call, **ask, IfMatch='"other"')[0] == 412
        assert refused(call, **ask, IfNoneMatch=etag)[0] == 304
        assert refused(call, **ask, IfModifiedSince=future)[0] == 304
        assert refused(call, **ask, IfUnmodifiedSince=past)[0] == 412


def test_conditional_writes_never_overwrite_by_accident(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    write = {"Bucket": bucket, "Key": "a", "Body": b"2"}
    assert refused(s3.put_object, **write, IfNoneMatch="*") == (412, "PreconditionFailed")
    assert refused(s3.put_object, **write, IfMatch='"other"')[0] == 412
    s3.put_object(**write, IfMatch=etag)
    begun, parts = upload(s3, bucket, "a", [b"3"])
    got = refused(
        s3.complete_multipart_upload,
        Bucket=bucket, Key="a", UploadId=begun, MultipartUpload={"Parts": parts}, IfNoneMatch="*",
    )
    assert got == (412, "PreconditionFailed")
    assert body(s3, bucket, "a") == b"2"
    complete(s3, bucket, "a", begun, parts)
    assert body(s3, bucket, "a") == b"3"


def test_of_many_conditional_creations_one_wins(s3, box, bucket):
    def create(n):
        try:
            s3.put_object(Bucket=bucket, Key="a", Body=str(n), IfNoneMatch="*")
            return n
        except ClientError:
            return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        winners = [n for n in pool.map(create, range(16)) if n is not None]
    assert [body(s3, bucket, "a")] == [str(n).encode() for n in winners]


def test_deleting_is_idempotent_and_may_be_conditional(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    assert refused(s3.delete_object, Bucket=bucket, Key="a", IfMatch='"other"')[0] == 412
    s3.delete_object(Bucket=bucket, Key="a", IfMatch=etag)
    s3.delete_object(Bucket=bucket, Key="a")
    put(s3, bucket, "b", "c")
    loud = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}, {"Key": "none"}]})
    assert [d["Key"] for d in loud["Deleted"]] == ["b", "none"]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "c"}], "Quiet": True})
    assert "Deleted" not in quiet and "Errors" not in quiet
    assert keys(s3.list_objects_v2(Bucket=bucket)) == []
    many = [{"Key": str(n)} for n in range(1001)]
    assert refused(s3.delete_objects, Bucket=bucket, Delete={"Objects": many})[0] == 400


# Checksums

SUMS = {
    "CRC32": lambda b: zlib.crc32(b).to_bytes(4, "big"),
    "SHA1": lambda b: hashlib.sha1(b).digest(),
    "SHA256": lambda b: hashlib.sha256(b).digest(),
}


@pytest.mark.parametrize("algorithm", SUMS)
def test_a_checksum_is_compared_before_anything_is_stored(s3, bucket, algorithm):
    said = base64.b64encode(SUMS[algorithm](b"right")).decode()
    name = f"Checksum{algorithm}"
    wrong = refused(s3.put_object, Bucket=bucket, Key="a", Body=b"wrong", **{name: said})
    assert wrong == (400, "BadDigest")
    assert refused(s3.head_object, Bucket=bucket, Key="a")[0] == 404
    s3.put_object(Bucket=bucket, Key="a", Body=b"right", **{name: said})
    assert s3.head_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")[name] == said


def test_an_md5_is_compared_when_it_is_sent(s3, bucket):
    right = base64.b64encode(hashlib.md5(b"right").digest()).decode()
    assert refused(s3.put_object, Bucket=bucket, Key="a", Body=b"wrong", ContentMD5=right)[1] == "BadDigest"
    assert refused(s3.put_object, Bucket=bucket, Key="a", Body=b"x", ContentMD5="zz")[1] == "InvalidDigest"
    s3.put_object(Bucket=bucket, Key="a", Body=b"right", ContentMD5=right)


def test_the_parts_checksums_add_up_to_the_objects(s3, bucket):
    parts = [os.urandom(5 * MIB), os.urandom(100)]
    begun, done = upload(s3, bucket, "a", parts, ChecksumAlgorithm="SHA256")
    answer = complete(s3, bucket, "a", begun, done)
    row = b"".join(hashlib.sha256(part).digest() for part in parts)
    expected = base64.b64encode(hashlib.sha256(row).digest()).decode() + "-2"
    assert answer["ChecksumSHA256"] == expected
    about = s3.get_object_attributes(
        Bucket=bucket, Key="a", ObjectAttributes=["ETag", "Checksum", "ObjectParts", "ObjectSize"]
    )
    assert about["ObjectSize"] == 5 * MIB + 100
    assert about["Checksum"]["ChecksumSHA256"] == expected
    listed = about["ObjectParts"]["Parts"]
    assert [(p["Size"], p["ChecksumSHA256"]) for p in listed] == [
        (len(part), base64.b64encode(hashlib.sha256(part).digest()).decode()) for part in parts
    ]
    begun, done = upload(s3, bucket, "b", [b"x"], ChecksumAlgorithm="SHA256")
    done[0]["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(b"y").digest()).decode()
    got = refused(
        s3.complete_multipart_upload,
        Bucket=bucket, Key="b", UploadId=begun, MultipartUpload={"Parts": done},
    )
    assert got == (400, "InvalidPart")


def test_the_crc_of_a_whole_upload_is_compared(s3, bucket):
    parts = [os.urandom(5 * MIB), b"end"]
    arguments = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
    begun = s3.create_multipart_upload(Bucket=bucket, Key="a", **arguments)["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        answer = s3.upload_part(
            Bucket=bucket, Key="a", UploadId=begun, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32"
        )
        done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    right = base64.b64encode(zlib.crc32(b"".join(parts)).to_bytes(4, "big")).decode()
    wrong = base64.b64encode(b"\0\0\0\1").decode()
    ask = {"Bucket": bucket, "Key": "a", "UploadId": begun, "MultipartUpload": {"Parts": done}, "ChecksumType": "FULL_OBJECT"}
    assert refused(s3.complete_multipart_upload, **ask, ChecksumCRC32=wrong)[1] == "BadDigest"
    assert s3.complete_multipart_upload(**ask, ChecksumCRC32=right)["ChecksumCRC32"] == right


# Multipart


def test_parts_may_be_sent_again_and_read_one_by_one(s3, bucket):
    parts = [os.urandom(5 * MIB), os.urandom(5 * MIB), b"end"]
    begun, done = upload(s3, bucket, "a", parts)
    parts[1] = os.urandom(6 * MIB)
    again = s3.upload_part(Bucket=bucket, Key="a", UploadId=begun, PartNumber=2, Body=parts[1])
    old, done[1]["ETag"] = done[1]["ETag"], again["ETag"]
    done[1] = {"PartNumber": 2, "ETag": again["ETag"]}
    stale = [done[0], {"PartNumber": 2, "ETag": old}, done[2]]
    ask = {"Bucket": bucket, "Key": "a", "UploadId": begun}
    assert refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": stale})[1] == "InvalidPart"
    listed = s3.list_parts(**ask, MaxParts=2)
    assert [p["Size"] for p in listed["Parts"]] == [5 * MIB, 6 * MIB] and listed["IsTruncated"]
    rest = s3.list_parts(**ask, PartNumberMarker=listed["NextPartNumberMarker"])
    assert [p["Size"] for p in rest["Parts"]] == [3]
    etag = complete(s3, bucket, "a", begun, done)["ETag"]
    assert body(s3, bucket, "a") == b"".join(parts)
    for number, part in enumerate(parts, 1):
        answer = s3.get_object(Bucket=bucket, Key="a", PartNumber=number)
        assert (answer["PartsCount"], answer["Body"].read()) == (3, part)
    assert refused(s3.get_object, Bucket=bucket, Key="a", PartNumber=4) == (400, "InvalidPart")
    # The answer was lost, and the client completes again.
    assert complete(s3, bucket, "a", begun, done)["ETag"] == etag


def test_uploads_that_make_no_sense_are_refused(s3, bucket):
    begun, done = upload(s3, bucket, "a", [b"short", b"end"])
    ask = {"Bucket": bucket, "Key": "a", "UploadId": begun}
    for parts, code in [
        (done, "EntityTooSmall"),
        (done[::-1], "InvalidPartOrder"),
        ([{"PartNumber": 9, "ETag": done[0]["ETag"]}], "InvalidPart"),
        ([], "MalformedXML"),
    ]:
        assert refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": parts})[1] == code
    none = {**ask, "UploadId": "nothing"}
    assert refused(s3.list_parts, **none) == (404, "NoSuchUpload")
    assert refused(s3.abort_multipart_upload, **none) == (404, "NoSuchUpload")
    s3.abort_multipart_upload(**ask)
    assert refused(s3.upload_part, **ask, PartNumber=1, Body=b"x") == (404, "NoSuchUpload")


def test_open_uploads_are_listed_until_they_end(s3, bucket):
    ids = {upload(s3, bucket, key, [b"x"])[0] for key in ("a", "a", "b/c")}
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 1}
    )
    assert {u["UploadId"] for page in pages for u in page.get("Uploads", [])} == ids
    only = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]
    assert [u["Key"] for u in only] == ["b/c"]


# Copies


def test_a_copy_is_whole_and_obeys_its_conditions(s3, bucket):
    data = os.urandom(3 * MIB)
    etag = s3.put_object(Bucket=bucket, Key="a b+ä", Body=data)["ETag"]
    ask = {"Bucket": bucket, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "a b+ä"}}
    assert refused(s3.copy_object, **ask, CopySourceIfMatch='"other"')[0] == 412
    assert refused(s3.copy_object, **ask, CopySourceIfNoneMatch=etag)[0] == 412
    s3.copy_object(**ask, CopySourceIfMatch=etag, MetadataDirective="REPLACE", Metadata={"new": "1"})
    assert body(s3, bucket, "copy") == data
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"new": "1"}
    itself = {**ask, "Key": "a b+ä"}
    assert refused(s3.copy_object, **itself) == (400, "InvalidRequest")
    s3.copy_object(**itself, MetadataDirective="REPLACE", Metadata={"again": "1"})
    missing = {**ask, "CopySource": f"{bucket}/none"}
    assert refused(s3.copy_object, **missing) == (404, "NoSuchKey")
    foreign = {**ask, "CopySource": "elsewhere/a"}
    assert refused(s3.copy_object, **foreign) == (403, "AccessDenied")


def test_parts_are_copied_by_range(s3, bucket):
    data = os.urandom(7 * MIB)
    put(s3, bucket, "a", body=data)
    begun = s3.create_multipart_upload(Bucket=bucket, Key="b")["UploadId"]
    ask = {"Bucket": bucket, "Key": "b", "UploadId": begun, "CopySource": f"{bucket}/a"}
    first = s3.upload_part_copy(**ask, PartNumber=1, CopySourceRange=f"bytes=0-{5 * MIB - 1}")
    last = s3.upload_part_copy(**ask, PartNumber=2, CopySourceRange=f"bytes={5 * MIB}-{7 * MIB - 1}")
    for bad in ("bytes=5-", "0-5", "bytes=9-3"):
        got = refused(s3.upload_part_copy, **ask, PartNumber=3, CopySourceRange=bad)
        assert got == (400, "InvalidArgument")
    beyond = refused(s3.upload_part_copy, **ask, PartNumber=3, CopySourceRange=f"bytes=0-{7 * MIB}")
    assert beyond[0] in (400, 416)
    parts = [
        {"PartNumber": n, "ETag": p["CopyPartResult"]["ETag"]} for n, p in enumerate((first, last), 1)
    ]
    complete(s3, bucket, "b", begun, parts)
    assert body(s3, bucket, "b") == data


# Requests


def fetch(box, url, method="GET", data=None, headers=None):
    context = ssl.create_default_context(cafile=box["ca"])
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    with urllib.request.urlopen(request, context=context) as answer:
        return answer.read()


def test_presigned_addresses_work_without_a_client(s3, box, bucket):
    where = {"Bucket": bucket, "Key": "a b+ä"}
    fetch(box, s3.generate_presigned_url("put_object", Params=where), "PUT", b"x" * 70_000)
    got = fetch(box, s3.generate_presigned_url("get_object", Params=where))
    assert got == b"x" * 70_000
    shown = s3.generate_presigned_url(
        "get_object", Params={**where, "ResponseContentType": "text/x-odd"}
    )
    assert fetch(box, shown) == got
    signed = s3.generate_presigned_url("get_object", Params=where)
    forged = signed[:-1] + ("1" if signed.endswith("0") else "0")
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(box, forged)
    assert caught.value.code == 403


def test_a_signed_body_is_compared_with_its_signature(box, bucket):
    s3 = lan_box.client(box, request_checksum_calculation="when_required", s3={"payload_signing_enabled": True})
    s3.put_object(Bucket=bucket, Key="signed", Body=b"x" * 100_000)
    assert body(s3, bucket, "signed") == b"x" * 100_000


def test_another_owner_cannot_be_vouched_for(s3, bucket):
    got = refused(s3.list_objects_v2, Bucket=bucket, ExpectedBucketOwner="123456789012")
    assert got == (403, "AccessDenied")


# Space


def test_a_full_box_says_so_and_takes_more_once_there_is_room():
    with lan_box.running("--capacity", str(64 * MIB), "--segment", str(MIB)) as box:
        s3, bucket = lan_box.client(box), box["bucket"]

        def used():
            vault = json.loads(fetch(box, box["url"] + "/longhaul/v1/status"))["vault"]
            return vault["used_bytes"] / vault["capacity_bytes"]

        stored = 0
        while used() < 0.82:
            put(s3, bucket, f"k{stored}", body=os.urandom(MIB))
            stored += 1
        # One object that does not fit into what is left: trying it again soon is useless.
        whole = refused(s3.put_object, Bucket=bucket, Key="large", Body=os.urandom(16 * MIB))
        assert whole == (507, "InsufficientStorage")
        assert refused(s3.head_object, Bucket=bucket, Key="large")[0] == 404
        deadline = time.monotonic() + 20
        while used() > 0.85:
            assert time.monotonic() < deadline, "what was not stored takes no space for long"
            put(s3, bucket, "tiny")
        with pytest.raises(ClientError) as caught:
            for extra in range(16):
                put(s3, bucket, f"extra{extra}", body=os.urandom(MIB))
        answer = caught.value.response
        assert answer["Error"]["Code"] == "SlowDown"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "30"
        for key in range(stored // 2):
            s3.delete_object(Bucket=bucket, Key=f"k{key}")
        # Space returns while others go on writing.
        patient = lan_box.client(box, retries={"max_attempts": 10, "mode": "standard"})
        for key in range(stored // 3):
            put(patient, bucket, f"again{key}", body=os.urandom(MIB))


# Names


@pytest.mark.parametrize("name", ["a//b", "a/../b", "./a", "x" * 1025, "a\\b"])
def test_names_that_no_bucket_holds_are_refused_with_the_rule(s3, bucket, name):
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    error = caught.value.response["Error"]
    assert error["Code"] in ("InvalidArgument", "KeyTooLongError", "SignatureDoesNotMatch")
    assert refused(s3.head_object, Bucket=bucket, Key="never-" + name[:9])[0] in (404, 403)


def test_a_name_that_looks_like_another_is_refused(s3, bucket):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    put(s3, bucket, decomposed)
    assert refused(s3.put_object, Bucket=bucket, Key=composed, Body=b"y") == (409, "NameClash")
    got = refused(s3.create_multipart_upload, Bucket=bucket, Key=composed)
    assert got == (409, "NameClash")
    put(s3, bucket, decomposed, "caf\u00e9s")


def test_a_name_that_differs_in_case_alone_is_stored_and_reported(s3, bucket):
    put(s3, bucket, "Photos/IMG_1.JPG", "ä/x")
    clash = s3.put_object(Bucket=bucket, Key="photos/img_1.jpg", Body=b"y")
    assert "Photos/IMG_1.JPG" in notice(clash)
    assert "u{e4}/x" in notice(s3.put_object(Bucket=bucket, Key="Ä/X", Body=b"y"))
    assert notice(s3.put_object(Bucket=bucket, Key="photos/img_1.jpg", Body=b"y")) is None
    assert notice(s3.put_object(Bucket=bucket, Key="photos/img_2.jpg", Body=b"y")) is None
    begun, parts = upload(s3, bucket, "PHOTOS/img_2.jpg", [b"y"])
    assert "photos/img_2.jpg" in notice(complete(s3, bucket, "PHOTOS/img_2.jpg", begun, parts))
    copied = s3.copy_object(Bucket=bucket, Key="Photos/Img_2.jpg", CopySource=f"{bucket}/ä/x")
    assert "in upper and lower case alone" in notice(copied)
    tar = archive([("ARCHIVED", b"1"), ("archived", b"2"), ("z", b"3"), ("Z", b"4")])
    s3.put_object(Bucket=bucket, Key="t.tar", Body=tar, Metadata=EXTRACT)
    again = archive([("Archived", b"1"), ("zz", b"2")])
    odd = s3.put_object(Bucket=bucket, Key="t.tar", Body=again, Metadata=EXTRACT)
    assert notice(odd).startswith("1 odd names, the first: ")
    assert len(keys(s3.list_objects_v2(Bucket=bucket))) == 13


# Archives


def archive(entries, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return file.getvalue()


EXTRACT = {"snowball-auto-extract": "true"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_becomes_its_entries(s3, bucket, format):
    long = "l" * 60 + "/" + "f" * 90
    entries = [(f"d/{n}", os.urandom(n * 300)) for n in range(40)] + [(long, b"x"), ("./e/", None)]
    tar = archive(entries, format=format)
    s3.put_object(Bucket=bucket, Key="in/batch.tar", Body=tar, Metadata={**EXTRACT, "camera": "7"})

    expected = {f"in/{name}": content for name, content in entries[:-1]} | {"in/e/": b""}
    assert keys(s3.list_objects_v2(Bucket=bucket)) == sorted(expected)
    for key, content in expected.items():
        assert body(s3, bucket, key) == content
    assert s3.head_object(Bucket=bucket, Key="in/d/1")["Metadata"] == {"camera": "7"}


def test_an_archive_may_come_in_parts(s3, bucket):
    entries = [("big", os.urandom(7 * MIB)), ("ä/small", b"x")]
    tar = archive(entries)
    begun, parts = upload(
        s3, bucket, "b.tar", [tar[: 5 * MIB], tar[5 * MIB :]],
        Metadata={**EXTRACT, "snowball-prefix": "pre/fix"},
    )
    assert complete(s3, bucket, "b.tar", begun, parts)["ETag"]
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["pre/fix/big", "pre/fix/ä/small"]
    assert body(s3, bucket, "pre/fix/big") == entries[0][1]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_an_entry_that_cannot_be_stored_is_named_or_passed_over(s3, bucket):
    tar = archive([("a", b"1"), ("../evil", b"2"), ("link", "a"), ("dir", None), ("z", b"3")])
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="t.tar", Body=tar, Metadata=EXTRACT)
    assert "../evil" in caught.value.response["Error"]["Message"]
    lenient = {**EXTRACT, "snowball-ignore-errors": "true", "snowball-ignore-dirs": "true"}
    answer = s3.put_object(Bucket=bucket, Key="t.tar", Body=tar, Metadata=lenient)
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["a", "z"]
    notice = answer["ResponseMetadata"]["HTTPHeaders"]["x-longhaul-notice"]
    assert notice.startswith("2 entries skipped") and "evil" in notice


@pytest.mark.parametrize("bad", [b"\x1f\x8b" + b"z" * 600, b"junk" * 300, b"x"])
def test_what_is_no_archive_is_refused(s3, bucket, bad):
    got = refused(s3.put_object, Bucket=bucket, Key="t.tar", Body=bad, Metadata=EXTRACT)
    assert got == (400, "InvalidRequest")
    cut = archive([("a", b"x" * 2000)])[:1500]
    assert refused(s3.put_object, Bucket=bucket, Key="t", Body=cut, Metadata=EXTRACT)[0] == 400
    assert keys(s3.list_objects_v2(Bucket=bucket)) == []
