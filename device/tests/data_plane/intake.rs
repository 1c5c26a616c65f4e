//! The intake as a real S3 client sees it: the AWS SDK over TLS.

use crate::lan::{BUCKET, Lan, SECRET, code, https, noise};
use aws_sdk_s3::operation::RequestId as _;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
};
use longhaul_device::intake::DELIVERY_HEADER;
use longhaul_protocol::lan::{
    BLAKE3_HEADER, DELIVERY_PATH, Deliveries, Delivery, LanStatus, STATUS_PATH,
};
use tokio::net::TcpStream;

#[tokio::test]
async fn what_was_put_comes_back_whole_in_ranges_and_with_its_metadata() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    let bytes = noise(3_000_000, 1);

    let put = s3
        .put_object()
        .bucket(BUCKET)
        .key("dir/ä b+c.bin")
        .content_type("application/x-test")
        .metadata("origin", "lab 7")
        .body(ByteStream::from(bytes.clone()))
        .send()
        .await
        .unwrap();
    let whole = s3
        .get_object()
        .bucket(BUCKET)
        .key("dir/ä b+c.bin")
        .send()
        .await
        .unwrap();
    let etag = whole.e_tag().unwrap().to_owned();
    assert_eq!(put.e_tag(), Some(etag.as_str()));
    assert!(etag.contains('-'), "not the shape of an MD5: {etag}");
    assert_eq!(whole.content_type(), Some("application/x-test"));
    assert_eq!(whole.metadata().unwrap()["origin"], "lab 7");
    assert_eq!(whole.body.collect().await.unwrap().to_vec(), bytes);

    let part = s3
        .get_object()
        .bucket(BUCKET)
        .key("dir/ä b+c.bin")
        .range("bytes=1000000-2000000")
        .send()
        .await
        .unwrap();
    assert_eq!(part.content_range(), Some("bytes 1000000-2000000/3000000"));
    let part = part.body.collect().await.unwrap().to_vec();
    assert_eq!(part, bytes[1_000_000..=2_000_000]);

    let behind = s3
        .get_object()
        .bucket(BUCKET)
        .key("dir/ä b+c.bin")
        .range("bytes=3000000-")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&behind).0, "InvalidRange");
    let unchanged = s3
        .get_object()
        .bucket(BUCKET)
        .key("dir/ä b+c.bin")
        .if_none_match(&etag)
        .send()
        .await
        .unwrap_err();
    assert_eq!(unchanged.raw_response().unwrap().status().as_u16(), 304);
    let head = s3
        .head_object()
        .bucket(BUCKET)
        .key("dir/ä b+c.bin")
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(3_000_000));
    let none = s3.get_object().bucket(BUCKET).key("nothing").send().await;
    assert_eq!(code(&none.unwrap_err()).0, "NoSuchKey");
    assert!(head.request_id().is_some_and(|id| id.len() == 16));
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let lan = Lan::start().await;
    let s3 = lan.client();

    s3.put_object()
        .bucket(BUCKET)
        .key("empty")
        .send()
        .await
        .unwrap();

    let got = s3
        .get_object()
        .bucket(BUCKET)
        .key("empty")
        .send()
        .await
        .unwrap();
    assert_eq!(got.content_length(), Some(0));
    assert!(got.body.collect().await.unwrap().to_vec().is_empty());
}

#[tokio::test]
async fn a_multipart_upload_becomes_one_object_and_reports_its_checksum() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    let bytes = noise(12 << 20, 4);
    let begun = s3
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("large")
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .send()
        .await
        .unwrap();
    let upload = begun.upload_id().unwrap();
    let mut parts = Vec::new();
    for (number, chunk) in (1..).zip(bytes.chunks(5 << 20)) {
        let part = s3
            .upload_part()
            .bucket(BUCKET)
            .key("large")
            .upload_id(upload)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(chunk.to_vec()))
            .send()
            .await
            .unwrap();
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .e_tag(part.e_tag().unwrap())
                .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
                .build(),
        );
    }
    let listed = s3
        .list_parts()
        .bucket(BUCKET)
        .key("large")
        .upload_id(upload)
        .max_parts(2)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (listed.parts().len(), listed.is_truncated()),
        (2, Some(true))
    );
    let open = s3
        .list_multipart_uploads()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    assert_eq!(open.uploads().len(), 1);

    let complete = |parts: Vec<CompletedPart>| {
        s3.complete_multipart_upload()
            .bucket(BUCKET)
            .key("large")
            .upload_id(upload)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts))
                    .build(),
            )
            .send()
    };
    let forged = CompletedPart::builder().part_number(1).e_tag("x").build();
    assert_eq!(
        code(&complete(vec![forged]).await.unwrap_err()).0,
        "InvalidPart"
    );
    let done = complete(parts.clone()).await.unwrap();

    assert!(done.checksum_crc32().unwrap().ends_with("-3"));
    let got = s3
        .get_object()
        .bucket(BUCKET)
        .key("large")
        .send()
        .await
        .unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), bytes);
    // The answer was lost, and the client completes again.
    let again = complete(parts.clone()).await.unwrap();
    assert_eq!(again.e_tag(), done.e_tag());
    // Another one thinks that fewer parts were enough: what is there is not what it named.
    let fewer = complete(parts[..1].to_vec()).await.unwrap_err();
    assert_eq!(code(&fewer).0, "NoSuchUpload");
}

#[tokio::test]
async fn listings_are_paged_rolled_up_and_start_where_asked() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    for key in ["a", "b/1", "b/2", "b0", "c/1/x", "c/2", "d e"] {
        s3.put_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
    }

    let mut seen = Vec::new();
    let mut token = None;
    loop {
        let page = s3
            .list_objects_v2()
            .bucket(BUCKET)
            .delimiter("/")
            .max_keys(1)
            .set_continuation_token(token)
            .send()
            .await
            .unwrap();
        seen.extend(
            page.contents()
                .iter()
                .filter_map(|o| o.key().map(str::to_owned)),
        );
        seen.extend(
            page.common_prefixes()
                .iter()
                .filter_map(|p| p.prefix().map(str::to_owned)),
        );
        token = page.next_continuation_token().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b/", "b0", "c/", "d e"]);

    let under = s3
        .list_objects_v2()
        .bucket(BUCKET)
        .prefix("c/")
        .send()
        .await
        .unwrap();
    let keys: Vec<_> = under.contents().iter().filter_map(|o| o.key()).collect();
    assert_eq!(keys, ["c/1/x", "c/2"]);
    let after = s3
        .list_objects_v2()
        .bucket(BUCKET)
        .start_after("b0")
        .send()
        .await
        .unwrap();
    assert_eq!(after.contents().len(), 3);
    let v1 = s3
        .list_objects()
        .bucket(BUCKET)
        .delimiter("/")
        .marker("b/")
        .send()
        .await
        .unwrap();
    assert_eq!(
        v1.contents()
            .iter()
            .filter_map(|o| o.key())
            .collect::<Vec<_>>(),
        ["b0", "d e"]
    );
}

#[tokio::test]
async fn deleted_objects_are_gone_and_the_cloud_is_told() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    for key in ["a", "b", "c"] {
        s3.put_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
    }
    let object = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();

    s3.delete_object()
        .bucket(BUCKET)
        .key("a")
        .send()
        .await
        .unwrap();
    let many = Delete::builder()
        .objects(object("b"))
        .objects(object("never"))
        .objects(object("bad//name"))
        .build()
        .unwrap();
    let answer = s3
        .delete_objects()
        .bucket(BUCKET)
        .delete(many)
        .send()
        .await
        .unwrap();

    // What was never here is gone, also where it could not have been.
    assert_eq!(answer.deleted().len(), 3);
    assert!(answer.errors().is_empty());
    let left = s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(left.contents().len(), 1);
    let told = lan.vault.deletions(9);
    let told: Vec<_> = told.iter().map(|gone| gone.key.as_str()).collect();
    assert_eq!(told, ["a", "b"]);
}

#[tokio::test]
async fn the_status_needs_no_ticket_and_deliveries_need_one() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    s3.put_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    let http = https(&lan);

    let status = http.get(lan.url() + STATUS_PATH).send().await.unwrap();
    let status: LanStatus = serde_json::from_slice(&status.bytes().await.unwrap()).unwrap();
    assert_eq!((status.vault.objects, status.vault.pending_objects), (1, 1));
    let ask = |user: &'static str, secret: &'static str, bucket: &str| {
        http.post(lan.url() + DELIVERY_PATH)
            .basic_auth(user, Some(secret))
            .body(serde_json::json!({"bucket": bucket, "keys": ["k", "unknown"]}).to_string())
            .send()
    };
    let told = ask("ACTIVE", SECRET, BUCKET).await.unwrap();
    let told: Deliveries = serde_json::from_slice(&told.bytes().await.unwrap()).unwrap();

    assert_eq!(told.objects.len(), 1);
    assert_eq!(told.objects[&"k".parse().unwrap()], Delivery::OnBox);
    assert_eq!(ask("ACTIVE", "guess", BUCKET).await.unwrap().status(), 401);
    assert_eq!(ask("ENDED", SECRET, BUCKET).await.unwrap().status(), 401);
    assert_eq!(ask("ACTIVE", SECRET, "other").await.unwrap().status(), 403);
    let presigned = s3
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(
            aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_mins(1))
                .unwrap(),
        )
        .await
        .unwrap();
    let got = http.get(presigned.uri()).send().await.unwrap();
    assert_eq!(got.status(), 200);
    assert_eq!(got.headers()[DELIVERY_HEADER], "on-box");
    let said = got.headers()[BLAKE3_HEADER].to_str().unwrap().to_owned();
    let body = got.bytes().await.unwrap();
    assert_eq!(said, blake3::hash(&body).to_hex().as_str());
}

#[tokio::test]
async fn a_request_under_way_is_finished_at_the_stop_signal() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    // More than sockets hold, so that most of it is still to be sent.
    let bytes = noise(32 << 20, 5);
    s3.put_object()
        .bucket(BUCKET)
        .key("large")
        .body(ByteStream::from(bytes.clone()))
        .send()
        .await
        .unwrap();
    let got = s3
        .get_object()
        .bucket(BUCKET)
        .key("large")
        .send()
        .await
        .unwrap();

    lan.stop.cancel();

    assert!(got.body.collect().await.unwrap().to_vec() == bytes);
    lan.task.await.unwrap();
    let refused = TcpStream::connect(lan.address).await;
    assert!(refused.is_err());
    drop(lan.dir);
}
