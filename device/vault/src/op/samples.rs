//! One operation of each kind.

use super::{Extent, Op, Source};
use crate::{Checksums, Condition, DeliveryEvent, Digests, UploadId, Version, tree::PartTree};

pub(crate) fn ops() -> Vec<Op> {
    let content = Digests {
        size: 3,
        blake3: [4; 32],
        crc64nvme: 5,
    };
    let id = UploadId([6; 16]);
    let frames = vec![Extent::Frames {
        incarnation: 1,
        at: 2,
        len: 3,
    }];
    let checksums = Checksums::from([("crc32".to_owned(), "AAAA".to_owned())]);
    let now = -7;
    vec![
        Op::Put {
            key: "k".into(),
            content,
            source: Source::Frames(frames.clone()),
            detail: vec![1, 2],
            condition: Condition::Absent,
            now,
        },
        Op::Delete {
            key: "k".into(),
            condition: Condition::Version(Version(3)),
        },
        Op::CreateUpload {
            id,
            key: "k".into(),
            detail: vec![],
            now,
        },
        Op::PutPart {
            upload: id,
            number: 9,
            content,
            tree: PartTree::default(),
            source: Source::Frames(frames),
            checksums: checksums.clone(),
            now,
        },
        Op::Complete {
            upload: id,
            parts: vec![(1, "a".into()), (2, "b".into())],
            checksums,
            condition: Condition::Etag("e".into()),
            now,
        },
        Op::Abort { upload: id },
        Op::Hashed {
            version: Version(1),
            blake3: [2; 32],
        },
        Op::Deliver {
            version: Version(8),
            event: DeliveryEvent::PartDone {
                number: 2,
                etag: "x".into(),
            },
        },
        Op::Forget {
            version: Version(8),
            upload: "u".into(),
        },
        Op::ForgetDeletion {
            version: Version(8),
        },
        Op::Incarnate {
            segment: 1,
            base: 2,
            salt: [3; 32],
        },
    ]
}
