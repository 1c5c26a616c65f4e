//! The built-in object store, spoken to in S3.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, EncodingType, ObjectIdentifier};
use aws_smithy_http_client::tls;

use crate::bench::Bench;

pub fn client(bench: &Bench, secret: Option<&str>) -> Client {
    let keys = std::fs::read(bench.dir.path().join("s3-keys.json")).expect("keys");
    let keys: serde_json::Value = serde_json::from_slice(&keys).expect("JSON");
    let text = |name: &str| keys[name].as_str().expect("text").to_owned();
    let secret = secret.map_or_else(|| text("secret_key"), str::to_owned);
    let trust = tls::TrustStore::empty()
        .with_native_roots(false)
        .with_pem_certificate(bench.pki().root_pem().into_bytes());
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::AwsLc,
        ))
        .tls_context(
            tls::TlsContext::builder()
                .with_trust_store(trust)
                .build()
                .expect("TLS"),
        )
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            text("access_key"),
            secret,
            None,
            None,
            "test",
        ))
        .endpoint_url(format!("https://localhost:{}", bench.s3_port))
        .http_client(http)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

fn code<T: std::fmt::Debug, E: ProvideErrorMetadata, R>(
    result: Result<T, SdkError<E, R>>,
) -> String {
    match result {
        Ok(answer) => panic!("not refused: {answer:?}"),
        Err(error) => error.code().unwrap_or_default().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_that_do_not_match_are_refused_and_nothing_is_stored() {
    let bench = Bench::start().await;
    let s3 = client(&bench, None);
    s3.create_bucket()
        .bucket("haul")
        .send()
        .await
        .expect("made");
    let put = || {
        s3.put_object()
            .bucket("haul")
            .key("a")
            .body(ByteStream::from_static(b"hello"))
    };

    let wrong = put().checksum_crc32("AAAAAA==").send().await;
    assert_eq!(code(wrong), "BadDigest");
    let wrong = put().checksum_sha256("A".repeat(43) + "=").send().await;
    assert_eq!(code(wrong), "BadDigest");
    let wrong = put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await;
    assert_eq!(code(wrong), "BadDigest");
    let malformed = put().content_md5("nonsense").send().await;
    assert_eq!(code(malformed), "InvalidDigest");
    assert_eq!(
        code(s3.get_object().bucket("haul").key("a").send().await),
        "NoSuchKey"
    );

    let right = put()
        .content_md5("XUFAKrxLKna5cZ2REBfFkg==")
        .send()
        .await
        .expect("stored");
    let etag = right.e_tag.expect("an ETag");
    assert!(etag.contains('-'), "{etag} must not look like an MD5");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_and_a_missing_bucket_are_refused() {
    let bench = Bench::start().await;

    let stranger = client(&bench, Some("not the secret"));
    let refused = stranger.list_buckets().send().await;
    assert_eq!(code(refused), "SignatureDoesNotMatch");
    let s3 = client(&bench, None);
    let put = s3
        .put_object()
        .bucket("none")
        .key("a")
        .body(ByteStream::from_static(b"x"));
    assert_eq!(code(put.send().await), "NoSuchBucket");
    assert_eq!(
        code(s3.list_objects_v2().bucket("none").send().await),
        "NoSuchBucket"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_keep_what_their_writer_said_and_can_be_read_in_part() {
    let bench = Bench::start().await;
    let s3 = client(&bench, None);
    s3.create_bucket()
        .bucket("haul")
        .send()
        .await
        .expect("made");
    s3.put_object()
        .bucket("haul")
        .key("dir/ä b+c")
        .content_type("text/plain")
        .metadata("camera", "seven")
        .body(ByteStream::from_static(b"0123456789"))
        .send()
        .await
        .expect("stored");

    let head = s3
        .head_object()
        .bucket("haul")
        .key("dir/ä b+c")
        .send()
        .await
        .expect("a head");
    assert_eq!(head.content_length, Some(10));
    assert_eq!(head.content_type.as_deref(), Some("text/plain"));
    assert_eq!(
        head.content_encoding, None,
        "how it travelled is no part of it"
    );
    assert_eq!(head.metadata.expect("metadata")["camera"], "seven");
    let part = s3
        .get_object()
        .bucket("haul")
        .key("dir/ä b+c")
        .range("bytes=3-5");
    let part = part.send().await.expect("a part");
    assert_eq!(part.content_range.as_deref(), Some("bytes 3-5/10"));
    assert_eq!(part.body.collect().await.expect("read").to_vec(), b"345");
    let listed = s3
        .list_objects_v2()
        .bucket("haul")
        .encoding_type(EncodingType::Url);
    let listed = listed.send().await.expect("a listing");
    let key = listed.contents()[0].key().map(str::to_owned);
    assert_eq!(
        key.as_deref(),
        Some("dir/%C3%A4%20b%2Bc"),
        "as in a URL, if asked for"
    );
    let plain = s3
        .list_objects_v2()
        .bucket("haul")
        .send()
        .await
        .expect("a listing");
    assert_eq!(plain.contents()[0].key(), Some("dir/ä b+c"));
    let exists = s3
        .put_object()
        .bucket("haul")
        .key("dir/ä b+c")
        .if_none_match("*")
        .body(ByteStream::from_static(b"other"));
    assert_eq!(code(exists.send().await), "PreconditionFailed");

    assert_eq!(
        code(s3.delete_bucket().bucket("haul").send().await),
        "BucketNotEmpty"
    );
    let one = ObjectIdentifier::builder()
        .key("dir/ä b+c")
        .build()
        .expect("an object");
    let all = Delete::builder().objects(one).build().expect("a list");
    s3.delete_objects()
        .bucket("haul")
        .delete(all)
        .send()
        .await
        .expect("deleted");
    s3.delete_bucket()
        .bucket("haul")
        .send()
        .await
        .expect("removed");
    bench.stop().await;
}
