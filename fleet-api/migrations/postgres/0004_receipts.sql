-- What boxes took, by its place in their Merkle trees, and the roots that they signed.

CREATE TABLE receipt_leaves (
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    epoch TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,
    bucket TEXT COLLATE "C" NOT NULL,
    object_key TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    blake3 TEXT NOT NULL,
    stored BIGINT NOT NULL,
    PRIMARY KEY (box_id, epoch, place)
);
CREATE INDEX receipt_leaves_by_key ON receipt_leaves (bucket, object_key, box_id, epoch, place);

CREATE TABLE receipt_roots (
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    epoch TEXT COLLATE "C" NOT NULL,
    root TEXT NOT NULL,
    leaves BIGINT NOT NULL,
    sealed BIGINT NOT NULL,
    jws TEXT NOT NULL,
    PRIMARY KEY (box_id, epoch)
);
