use super::*;
use proptest::prelude::*;

fn block(name: &[u8], flag: u8, bytes: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[124..135].copy_from_slice(format!("{bytes:011o}").as_bytes());
    block[156] = flag;
    block[257..263].copy_from_slice(b"ustar\0");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn entry(name: &str, flag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = block(name.as_bytes(), flag, body.len() as u64);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Paths and bodies of an archive that is fed in pieces.
fn read(archive: &[u8], piece: usize) -> Result<Vec<(Header, Vec<u8>)>, TarError> {
    let (mut decoder, mut found) = (Decoder::default(), Vec::<(Header, Vec<u8>)>::new());
    for mut input in archive.chunks(piece) {
        while let Some(event) = decoder.next(&mut input)? {
            match event {
                Event::Entry(header) => found.push((header, Vec::new())),
                Event::Body(bytes) => found.last_mut().expect("an entry").1.extend(bytes),
                Event::EntryEnd => {}
            }
        }
    }
    decoder.finish()?;
    Ok(found)
}

fn paths(archive: &[u8]) -> Vec<String> {
    let found = read(archive, 100).expect("a tar");
    let path = |header: Header| String::from_utf8(header.path).expect("UTF-8");
    found.into_iter().map(|(header, _)| path(header)).collect()
}

#[test]
fn long_names_come_from_gnu_and_from_pax() {
    let long = "d/".repeat(90) + "file";
    let mut gnu = entry("././@LongLink", b'L', format!("{long}\0").as_bytes());
    gnu.extend(entry("short", b'0', b"x"));
    let record = format!(" path={long}\n");
    let length = record.len() + 3;
    let mut pax = entry("PaxHeaders/x", b'x', format!("{length}{record}").as_bytes());
    pax.extend(entry("short", b'0', b"x"));
    pax.extend(entry("next", b'0', b""));

    assert_eq!(paths(&gnu), std::slice::from_ref(&long));
    assert_eq!(paths(&pax), [long, "next".to_owned()]);
}

#[test]
fn a_length_may_be_binary_or_stand_in_a_pax_header() {
    let mut binary = block(b"b", b'0', 0);
    binary[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    seal(&mut binary);
    binary.extend(b"abc");
    binary.resize(2 * BLOCK, 0);
    let mut pax = entry("h", b'x', b"10 size=3\n");
    pax.extend(block(b"p", b'0', 0));
    pax.extend(b"abc");
    pax.resize(pax.len().next_multiple_of(BLOCK), 0);

    for archive in [binary, pax] {
        assert_eq!(read(&archive, 7).expect("a tar")[0].1, b"abc");
    }
}

#[test]
fn links_and_folders_are_told_from_files() {
    let mut archive = entry("f/", b'5', b"");
    archive.extend(entry("old/", 0, b""));
    archive.extend(block(b"link", b'2', 77));
    archive.extend(entry("file", b'0', b"x"));
    let kinds: Vec<Kind> = read(&archive, 512)
        .expect("a tar")
        .into_iter()
        .map(|(header, _)| header.kind)
        .collect();

    assert_eq!(
        kinds,
        [Kind::Folder, Kind::Folder, Kind::Other(b'2'), Kind::File]
    );
}

#[test]
fn what_is_no_tar_is_refused_at_its_first_block() {
    let gzip = [&[0x1f, 0x8b, 8][..], &[7; 600]].concat();
    let giant = block(b"x", b'x', 1 << 30);
    let mut flipped = entry("a", b'0', b"x");
    flipped[0] ^= 1;

    assert_eq!(read(&gzip, 100), Err(TarError::Compressed));
    assert!(matches!(read(&giant, 100), Err(TarError::TooLong { .. })));
    assert_eq!(read(&flipped, 100), Err(TarError::Header { entry: 1 }));
    assert_eq!(read(&[b'z'; 600], 100), Err(TarError::Header { entry: 1 }));
}

#[test]
fn an_archive_cut_inside_an_entry_is_truncated() {
    let archive = entry("a", b'0', &[7; 700]);

    for cut in [1, 511, 512, 513, 1211] {
        let got = read(&archive[..cut], 64);
        assert_eq!(got, Err(TarError::Truncated { entry: 1 }), "{cut}");
    }
    assert!(read(&archive, 64).is_ok(), "the end mark may be absent");
}

proptest! {
    #[test]
    fn archives_survive_any_cutting(
        files in prop::collection::vec(("[a-z]{1,20}", prop::collection::vec(any::<u8>(), 0..1200)), 0..6),
        piece in 1_usize..700,
    ) {
        let mut archive: Vec<u8> = files.iter().flat_map(|(n, b)| entry(n, b'0', b)).collect();
        archive.extend([0; 2 * BLOCK]);
        let found: Vec<_> = read(&archive, piece)
            .expect("a tar")
            .into_iter()
            .map(|(header, body)| (String::from_utf8(header.path).expect("UTF-8"), body))
            .collect();
        prop_assert_eq!(found, files);
    }

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        at in 0_usize..1024,
        piece in 1_usize..600,
    ) {
        let _ = read(&bytes, piece);
        let mut archive = entry("h", b'x', b"10 size=3\n12 path=ab/\n");
        for (offset, byte) in bytes.iter().take(8).enumerate() {
            if let Some(place) = archive.get_mut(at + offset) {
                *place = *byte;
            }
        }
        let header: &mut [u8] = &mut archive[..BLOCK];
        seal(header);
        archive.extend(&bytes);
        let _ = read(&archive, piece);
    }
}
