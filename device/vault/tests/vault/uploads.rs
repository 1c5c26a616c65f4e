//! Multipart uploads: durable parts, atomic completion without copying.

use longhaul_vault::{
    Checksums, Condition, Error, Metadata, PartInfo, PartNumber, UploadId, Vault,
};

use crate::support::{bytes, get, job, open, put, read_all, try_get};

fn create(vault: &Vault, key: &str) -> UploadId {
    let commit = vault.create_upload(&job(), key, Metadata::default(), Checksums::new());
    commit.wait().expect("an upload")
}

fn number(number: u16) -> PartNumber {
    PartNumber::new(number).expect("in range")
}

fn put_part(vault: &Vault, upload: &UploadId, part: u16, data: &[u8]) -> PartInfo {
    let mut writer = vault.begin_part(upload, number(part)).expect("a writer");
    writer.write(data).expect("written");
    writer.finish(Checksums::new()).wait().expect("a part")
}

fn complete(
    vault: &Vault,
    upload: &UploadId,
    parts: &[&PartInfo],
) -> Result<longhaul_vault::ObjectInfo, Error> {
    let parts = parts
        .iter()
        .map(|part| (part.number, part.etag.clone()))
        .collect();
    vault
        .complete_upload(upload, parts, Checksums::new(), Condition::Any)
        .wait()
}

#[test]
fn an_upload_survives_restarts_and_becomes_the_concatenation_of_its_parts() {
    let dir = tempfile::tempdir().expect("a directory");
    let sizes = [20_000, 100, 8176, 0, 513];
    let data: Vec<Vec<u8>> = (0..5)
        .map(|n| bytes(n, sizes[usize::try_from(n).expect("small")]))
        .collect();
    let vault = open(dir.path());
    let upload = create(&vault, "k");
    let mut parts = Vec::new();
    // Out of order, as clients send them.
    for at in [3, 0, 4] {
        parts.push(put_part(
            &vault,
            &upload,
            u16::try_from(at + 1).expect("small"),
            &data[at],
        ));
    }
    drop(vault);
    let vault = open(dir.path());
    vault.checkpoint().expect("a checkpoint");
    for at in [1, 2] {
        parts.push(put_part(
            &vault,
            &upload,
            u16::try_from(at + 1).expect("small"),
            &data[at],
        ));
    }
    drop(vault);
    let vault = open(dir.path());
    parts.sort_by_key(|part| part.number);
    assert_eq!(
        vault.parts(&upload, None, 99).expect("a listing").items,
        parts
    );
    assert_eq!(
        vault
            .parts(&upload, Some(number(4)), 99)
            .expect("a listing")
            .items,
        parts[4..]
    );
    assert_eq!(vault.upload(&upload).expect("there").key, "k");

    let info = complete(&vault, &upload, &parts.iter().collect::<Vec<_>>()).expect("completed");

    let whole = data.concat();
    assert_eq!(
        info.crc64nvme,
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &whole)
    );
    assert_eq!(
        (info.size, info.parts, info.blake3),
        (whole.len() as u64, 5, None)
    );
    assert!(info.etag.ends_with("-5"), "{}", info.etag);
    assert!(matches!(vault.upload(&upload), Err(Error::NoSuchUpload(_))));
    assert_eq!(get(&vault, "k"), whole);
    let middle = vault
        .get(&job(), "k", Some(19_999..28_300))
        .expect("a range");
    assert_eq!(read_all(middle).expect("verified"), &whole[19_999..28_300]);
    drop(vault);
    assert_eq!(get(&open(dir.path()), "k"), whole);
}

#[test]
fn a_part_of_the_same_number_replaces_the_earlier_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let upload = create(&vault, "k");
    let first = put_part(&vault, &upload, 1, &bytes(1, 9000));
    let second = put_part(&vault, &upload, 1, &bytes(2, 700));
    assert!(matches!(
        complete(&vault, &upload, &[&first]),
        Err(Error::InvalidPart(_))
    ));
    complete(&vault, &upload, &[&second]).expect("completed");
    assert_eq!(get(&vault, "k"), bytes(2, 700));
}

#[test]
fn a_list_of_parts_that_does_not_fit_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    put(&vault, "k", b"old");
    let upload = create(&vault, "k");
    let (one, two) = (
        put_part(&vault, &upload, 1, b"1"),
        put_part(&vault, &upload, 2, b"2"),
    );
    let absent = PartInfo {
        number: number(3),
        ..one.clone()
    };
    for wrong in [&[&two, &one][..], &[&one, &one], &[&one, &absent], &[]] {
        let refused = complete(&vault, &upload, wrong);
        assert!(
            matches!(refused, Err(Error::InvalidPart(_) | Error::NoParts)),
            "{refused:?}"
        );
    }
    assert_eq!(get(&vault, "k"), b"old");
    complete(&vault, &upload, &[&one, &two]).expect("completed after all");
    assert_eq!(get(&vault, "k"), b"12");
}

#[test]
fn an_aborted_upload_is_gone_with_its_space() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let empty = vault.stats().used_bytes;
    for _ in 0..100 {
        let upload = create(&vault, "k");
        put_part(&vault, &upload, 1, &bytes(1, 100_000));
        vault.abort_upload(&upload).wait().expect("aborted");
        assert!(matches!(
            vault.abort_upload(&upload).wait(),
            Err(Error::NoSuchUpload(_))
        ));
        assert!(matches!(
            vault.begin_part(&upload, number(1)),
            Err(Error::NoSuchUpload(_))
        ));
    }
    assert!(
        vault.stats().used_bytes < empty + 600_000,
        "{:?}",
        vault.stats()
    );
    assert!(matches!(try_get(&vault, "k"), Err(Error::NoSuchObject(_))));
}

#[test]
fn uploads_are_listed_by_key_and_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let made: Vec<_> = ["b", "a", "b", "c"].map(|key| create(&vault, key)).into();
    let page = |prefix: &str, after, limit| {
        let page = vault
            .uploads(&job(), prefix, after, limit)
            .expect("a listing");
        (page.items, page.more)
    };
    let (all, more) = page("", None, 99);
    assert_eq!((all.len(), more), (4, false));
    assert_eq!(all[0].id, made[1]);
    let (first, more) = page("b", None, 1);
    assert!(more);
    let (second, more) = page("b", Some(("b", Some(first[0].id))), 1);
    assert!(!more);
    assert_ne!(first[0].id, second[0].id);
    assert_eq!(page("", Some(("b", None)), 9).0[0].id, made[3]);
}

#[test]
fn an_upload_keeps_what_it_was_created_with() {
    let dir = tempfile::tempdir().expect("a directory");
    let metadata = Metadata {
        user: [("a".to_owned(), "b".to_owned())].into(),
        ..Metadata::default()
    };
    let asked = Checksums::from([("algorithm".to_owned(), "CRC64NVME".to_owned())]);
    let upload = {
        let vault = open(dir.path());
        vault
            .create_upload(&job(), "k", metadata.clone(), asked.clone())
            .wait()
            .expect("an upload")
    };
    let vault = open(dir.path());
    let info = vault.upload(&upload).expect("there");
    assert_eq!((&info.metadata, &info.checksums), (&metadata, &asked));
    let part = put_part(&vault, &upload, 7, b"x");
    assert_eq!(
        complete(&vault, &upload, &[&part])
            .expect("completed")
            .metadata,
        metadata
    );
    assert_eq!(upload.to_string().parse::<UploadId>(), Ok(upload));
}

#[test]
fn the_hash_of_an_object_of_regular_parts_is_known_when_it_is_complete() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = longhaul_vault::VaultConfig::new(dir.path(), 1 << 30);
    let (vault, _) = crate::support::open_with(config.clone());
    let data = bytes(1, (13 << 20) + 77);
    let upload = create(&vault, "k");
    let mut parts = Vec::new();
    // In parallel, as clients send them: the short last part is begun, but not first.
    let pieces: Vec<_> = (1..).zip(data.chunks(5 << 20)).collect();
    let mut writers = Vec::new();
    for at in [1, 2, 0] {
        let (part, piece): (u16, &[u8]) = pieces[at];
        let len = piece.len() as u64;
        let writer = vault
            .begin_sized_part(&upload, number(part), len)
            .expect("a writer");
        writers.push((writer, piece));
    }
    for (mut writer, piece) in writers {
        writer.write(piece).expect("written");
        parts.push(writer.finish(Checksums::new()).wait().expect("a part"));
    }
    parts.sort_by_key(|part| part.number);
    vault.checkpoint().expect("a checkpoint");
    drop(vault);
    let (vault, _) = crate::support::open_with(config.clone());

    let info = complete(&vault, &upload, &parts.iter().collect::<Vec<_>>()).expect("completed");

    assert_eq!(info.blake3, Some(*blake3::hash(&data).as_bytes()));
    vault.checkpoint().expect("a checkpoint");
    drop(vault);
    let (vault, _) = crate::support::open_with(config);
    assert_eq!(vault.head(&job(), "k").expect("there"), info);
    assert_eq!(get(&vault, "k"), data);
}
