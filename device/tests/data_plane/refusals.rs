//! What the intake does not take, and how it says so.

use crate::lan::{BUCKET, Lan, NOW, SECRET, code, https, noise};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use longhaul_protocol::lan::SIZE_HEADER;
use longhaul_vault::VaultConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn right_checksums_are_kept_and_wrong_ones_refused_for_every_algorithm() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        s3.put_object()
            .bucket(BUCKET)
            .key("summed")
            .checksum_algorithm(algorithm.clone())
            .body(ByteStream::from(noise(100_000, 2)))
            .send()
            .await
            .unwrap_or_else(|error| panic!("{algorithm:?}: {error:?}"));
    }
    let wrong = |put: aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder| {
        put.bucket(BUCKET)
            .key("wrong")
            .body(ByteStream::from(noise(100_000, 3)))
            .send()
    };
    let zeros =
        |len: usize| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, vec![0; len]);
    let answers = [
        (
            "crc32",
            wrong(s3.put_object().checksum_crc32(zeros(4))).await,
        ),
        (
            "crc32c",
            wrong(s3.put_object().checksum_crc32_c(zeros(4))).await,
        ),
        (
            "crc64nvme",
            wrong(s3.put_object().checksum_crc64_nvme(zeros(8))).await,
        ),
        (
            "sha1",
            wrong(s3.put_object().checksum_sha1(zeros(20))).await,
        ),
        (
            "sha256",
            wrong(s3.put_object().checksum_sha256(zeros(32))).await,
        ),
        ("md5", wrong(s3.put_object().content_md5(zeros(16))).await),
    ];

    for (name, answer) in answers {
        let (code, message) = code(&answer.unwrap_err());
        assert_eq!(code, "BadDigest", "{name}: {message}");
        assert!(message.contains("nothing was stored"), "{name}: {message}");
    }
    let got = s3.get_object().bucket(BUCKET).key("wrong").send().await;
    assert_eq!(code(&got.unwrap_err()).0, "NoSuchKey");
}

#[tokio::test]
async fn strangers_ended_tickets_and_other_buckets_are_told_apart() {
    let lan = Lan::start().await;
    let put = |client: aws_sdk_s3::Client, bucket: &'static str| async move {
        let answer = client.put_object().bucket(bucket).key("k").send().await;
        code(&answer.unwrap_err())
    };

    assert_eq!(
        put(lan.client_as("ACTIVE", "guess"), BUCKET).await.0,
        "SignatureDoesNotMatch"
    );
    assert_eq!(
        put(lan.client_as("NOBODY", SECRET), BUCKET).await.0,
        "InvalidAccessKeyId"
    );
    let (ended, why) = put(lan.client_as("ENDED", SECRET), BUCKET).await;
    assert_eq!(ended, "AccessDenied");
    assert!(why.contains("expired at 2023-11-14T22:13:20Z"), "{why}");
    // Who does not have the secret learns nothing of the ticket.
    assert_eq!(
        put(lan.client_as("ENDED", "guess"), BUCKET).await.0,
        "SignatureDoesNotMatch"
    );
    let (other, why) = put(lan.client(), "other-bucket").await;
    assert_eq!(other, "AccessDenied");
    assert!(why.contains(BUCKET), "{why}");
    assert_eq!(lan.vault.stats().objects, 0);
}

#[tokio::test]
async fn a_ticket_that_ends_refuses_the_next_put_and_the_parts_of_what_was_begun() {
    let now = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&now);
    let lan = Lan::at(
        |vault| vault,
        |intake| intake,
        move || clock.load(Ordering::Relaxed),
    )
    .await;
    let s3 = lan.client();
    let put = |key: &'static str| {
        let body = ByteStream::from(noise(1000, 1));
        s3.put_object().bucket(BUCKET).key(key).body(body).send()
    };
    put("before").await.unwrap();
    let begun = s3.create_multipart_upload().bucket(BUCKET).key("parts");
    let begun = begun.send().await.unwrap();

    // The last millisecond that the ticket is good for, and the one after it.
    now.store(NOW + 999, Ordering::Relaxed);
    put("in-time").await.unwrap();
    now.store(NOW + 1000, Ordering::Relaxed);
    let late = put("late").await.unwrap_err();
    let part = s3
        .upload_part()
        .bucket(BUCKET)
        .key("parts")
        .upload_id(begun.upload_id().unwrap())
        .part_number(1)
        .body(ByteStream::from(noise(1000, 2)))
        .send()
        .await
        .unwrap_err();

    assert_eq!(late.raw_response().unwrap().status().as_u16(), 403);
    let (name, why) = code(&late);
    assert_eq!(name, "AccessDenied");
    assert!(why.contains("expired at 2023-11-14T22:13:21Z"), "{why}");
    assert_eq!(code(&part).0, "AccessDenied");
    let kept = lan.vault.list(&BUCKET.parse().unwrap(), "", None, 9);
    let kept: Vec<_> = kept.unwrap().items.into_iter().map(|o| o.key).collect();
    assert_eq!(kept, ["before", "in-time"], "the late one left no trace");
}

#[tokio::test]
async fn names_that_no_bucket_can_hold_are_refused_with_the_rule() {
    let lan = Lan::start().await;
    let s3 = lan.client();
    for (key, rule) in [
        ("a/../b", "segment"),
        ("a//b", "empty segment"),
        ("a\\b", "backslash"),
    ] {
        let answer = s3.put_object().bucket(BUCKET).key(key).send().await;

        let (code, message) = code(&answer.unwrap_err());
        assert_eq!(code, "InvalidArgument", "{key}");
        assert!(message.contains(rule), "{key}: {message}");
    }
}

/// A box of two megabytes.
async fn tiny() -> Lan {
    let small = |vault: VaultConfig| VaultConfig {
        capacity_bytes: 2 << 20,
        ..vault.small()
    };
    Lan::with(small, |intake| intake).await
}

#[tokio::test]
async fn what_is_longer_than_the_box_is_refused_before_a_byte_of_it_is_kept() {
    let lan = tiny().await;
    let s3 = lan.client();
    let before = lan.vault.stats().used_bytes;

    let body = ByteStream::from(noise(3 << 20, 1));
    let put = s3.put_object().bucket(BUCKET).key("long").body(body);
    let put = put.send().await.unwrap_err();
    let begun = s3.create_multipart_upload().bucket(BUCKET).key("parts");
    let begun = begun.customize().mutate_request(|request| {
        request.headers_mut().insert(SIZE_HEADER, "3145728");
    });
    let begun = begun.send().await.unwrap_err();

    for (name, why) in [code(&put), code(&begun)] {
        assert_eq!(name, "EntityTooLarge");
        assert!(why.contains("more than the whole box holds"), "{why}");
    }
    let stats = lan.vault.stats();
    assert_eq!((stats.used_bytes, stats.uploads), (before, 0));
    let exact = s3.put_object().bucket(BUCKET).key("fits");
    let exact = exact.body(ByteStream::from(noise(1 << 20, 2)));
    exact.send().await.unwrap();
}

#[tokio::test]
async fn an_upload_that_turns_out_longer_than_the_box_is_ended_and_its_space_is_back_at_once() {
    let lan = tiny().await;
    let s3 = lan.client();
    let begun = s3.create_multipart_upload().bucket(BUCKET).key("endless");
    let begun = begun.send().await.unwrap();

    let mut number = 0;
    let refusal = loop {
        number += 1;
        assert!(number < 20, "it never ends");
        let part = s3
            .upload_part()
            .bucket(BUCKET)
            .key("endless")
            .upload_id(begun.upload_id().unwrap())
            .part_number(number)
            .body(ByteStream::from(noise(200_000, 3)))
            .send();
        if let Err(refusal) = part.await {
            break refusal;
        }
    };

    let (name, why) = code(&refusal);
    assert_eq!(name, "EntityTooLarge", "{why}");
    assert!(why.contains("the upload is ended"), "{why}");
    assert!(number > 5, "it was taken as long as it could fit: {number}");
    assert_eq!(lan.vault.stats().uploads, 0, "nobody had to abort it");
    for index in 0..20 {
        let put = s3.put_object().bucket(BUCKET).key(format!("{index}"));
        let put = put.body(ByteStream::from(noise(50_000, index)));
        put.send().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_box_says_so_and_keeps_what_it_has() {
    let lan = Lan::with(
        |mut vault| {
            vault = vault.small();
            vault.capacity_bytes = 2 << 20;
            vault
        },
        |intake| intake,
    )
    .await;
    let s3 = lan.client();

    let mut stored: u8 = 0;
    let refusal = loop {
        let put = s3
            .put_object()
            .bucket(BUCKET)
            .key(format!("{stored}"))
            .body(ByteStream::from(noise(50_000, stored)))
            .send()
            .await;
        match put {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 60, "it never fills");
    };

    let (code, message) = code(&refusal);
    let status = refusal.raw_response().unwrap().status().as_u16();
    assert!(
        (code == "SlowDown" && status == 503) || (code == "InsufficientStorage" && status == 507),
        "{status} {code}: {message}"
    );
    assert!(stored > 10);
    for index in 0..stored {
        let got = s3
            .get_object()
            .bucket(BUCKET)
            .key(format!("{index}"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            got.body.collect().await.unwrap().to_vec(),
            noise(50_000, index)
        );
    }

    // A deletion finds room in the log of a full box, and what it frees is there for the next.
    for index in 0..stored / 2 {
        s3.delete_object()
            .bucket(BUCKET)
            .key(format!("{index}"))
            .send()
            .await
            .unwrap();
    }
    for index in 0..stored / 4 {
        s3.put_object()
            .bucket(BUCKET)
            .key(format!("again-{index}"))
            .body(ByteStream::from(noise(50_000, index)))
            .send()
            .await
            .unwrap_or_else(|error| panic!("no room for {index}: {error:?}"));
    }
    let kept = stored - stored / 2 + stored / 4;
    assert_eq!(lan.vault.stats().objects, u64::from(kept));
    assert!(lan.vault.scrub().damaged.is_empty());
}

#[tokio::test]
async fn a_box_that_fills_up_under_many_writers_loses_nothing_it_acknowledged() {
    let lan = Lan::with(
        |mut vault| {
            vault = vault.small();
            vault.capacity_bytes = 2 << 20;
            vault
        },
        |intake| intake,
    )
    .await;
    let s3 = lan.client();
    let writers = (0..4_u8).map(|writer| {
        let s3 = s3.clone();
        async move {
            let mut stored = Vec::new();
            for turn in 0..60_u8 {
                let (key, seed) = (format!("{writer}-{turn}"), writer * 60 + turn);
                let put = s3
                    .put_object()
                    .bucket(BUCKET)
                    .key(&key)
                    .body(ByteStream::from(noise(30_000, seed)))
                    .send()
                    .await;
                match put {
                    Ok(_) => stored.push((key, seed)),
                    Err(error) => {
                        let (name, message) = code(&error);
                        let full = ["SlowDown", "InsufficientStorage"];
                        assert!(full.contains(&name.as_str()), "{name}: {message}");
                        assert!(!message.is_empty(), "{name} says what to do");
                        return stored;
                    }
                }
            }
            panic!("it never fills");
        }
    });
    let stored = futures::future::join_all(writers).await.concat();

    assert!(stored.len() > 20, "{} fit", stored.len());
    assert_eq!(lan.vault.stats().objects, stored.len() as u64);
    for (key, seed) in stored {
        let got = s3.get_object().bucket(BUCKET).key(&key).send();
        let bytes = got.await.unwrap().body.collect().await.unwrap();
        assert_eq!(bytes.to_vec(), noise(30_000, seed), "{key}");
    }
}

#[tokio::test]
async fn garbage_and_silence_end_their_own_connection_only() {
    let lan = Lan::with(
        |vault| vault,
        |mut intake| {
            intake.handshake_limit = std::time::Duration::from_millis(300);
            intake
        },
    )
    .await;

    let mut garbage = TcpStream::connect(lan.address).await.unwrap();
    garbage.write_all(&noise(4096, 9)).await.unwrap();
    let mut silent = TcpStream::connect(lan.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest).await;
    let _ = silent.read_to_end(&mut rest).await;

    let http = https(&lan);
    let odd = http.get(lan.url() + "/%ff%00?x=%zz").send().await.unwrap();
    assert!(odd.status().is_client_error(), "{}", odd.status());
    let put = lan
        .client()
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await;
    assert!(put.is_ok());
}

#[tokio::test]
async fn errors_to_head_have_no_body_and_old_signatures_are_named() {
    let lan = Lan::start().await;
    let http = https(&lan);
    let soon =
        aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_mins(1));
    let head = lan
        .client()
        .head_object()
        .bucket(BUCKET)
        .key("nothing")
        .presigned(soon.unwrap())
        .await
        .unwrap();

    let missing = http.head(head.uri()).send().await.unwrap();
    assert_eq!(missing.version(), http::Version::HTTP_2);
    assert_eq!(missing.status(), 404);
    assert!(missing.bytes().await.unwrap().is_empty());

    let old = format!(
        "{}/{BUCKET}/k?AWSAccessKeyId=ACTIVE&Expires=9&Signature=x",
        lan.url()
    );
    let old = http.get(old).send().await.unwrap();
    assert_eq!(old.status(), 400);
    let body = old.bytes().await.unwrap();
    assert!(
        String::from_utf8_lossy(&body).contains("version 4"),
        "{body:?}"
    );
    let anonymous = http
        .get(format!("{}/{BUCKET}/k", lan.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status(), 403);
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_refused_and_leaves_no_trace() {
    let lan = Lan::with(
        |vault| vault,
        |mut intake| {
            intake.stall_limit = std::time::Duration::from_millis(300);
            intake
        },
    )
    .await;
    let soon =
        aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_mins(1));
    let put = lan
        .client()
        .put_object()
        .bucket(BUCKET)
        .key("half")
        .presigned(soon.unwrap())
        .await
        .unwrap();
    let (_sender, body) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let half = futures::stream::iter([Ok("half".into())]);
    let never = futures::stream::unfold(body, |mut body| async move {
        body.recv().await.map(|chunk| (chunk, body))
    });

    let answer = https(&lan)
        .put(put.uri())
        .header("content-length", 8)
        .body(reqwest::Body::wrap_stream(futures::StreamExt::chain(
            half, never,
        )))
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), 400);
    let body = answer.bytes().await.unwrap();
    assert!(
        String::from_utf8_lossy(&body).contains("RequestTimeout"),
        "{body:?}"
    );
    assert_eq!(lan.vault.stats().objects, 0);
}

#[tokio::test]
async fn released_bytes_are_to_be_read_from_the_bucket() {
    use longhaul_vault::DeliveryEvent;
    let lan = Lan::start().await;
    let s3 = lan.client();
    s3.put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from(noise(100_000, 6)))
        .send()
        .await
        .unwrap();
    let version = lan
        .vault
        .head(&BUCKET.parse().unwrap(), "k")
        .unwrap()
        .version;
    for event in [
        DeliveryEvent::Delivered,
        DeliveryEvent::Verified,
        DeliveryEvent::Released,
    ] {
        lan.vault.deliver(version, event).await.unwrap();
    }

    let head = s3
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    let got = s3
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap_err();

    assert_eq!(head.content_length(), Some(100_000));
    let (code, message) = code(&got);
    assert_eq!(code, "InvalidObjectState");
    assert!(message.contains("read it from the bucket"), "{message}");
}
