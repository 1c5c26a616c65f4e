-- Packs of small objects on their way from a box to the buckets.
CREATE TABLE packs (
    pack_id TEXT NOT NULL PRIMARY KEY,
    box_id TEXT NOT NULL REFERENCES boxes (box_id),
    state TEXT NOT NULL,
    reason TEXT,
    claimed BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX packs_by_state ON packs (state, created, pack_id);

-- Which pack carries an upload; the newest one counts.
CREATE TABLE pack_entries (
    upload_id TEXT NOT NULL PRIMARY KEY REFERENCES uploads (upload_id),
    pack_id TEXT NOT NULL REFERENCES packs (pack_id)
);
CREATE INDEX pack_entries_by_pack ON pack_entries (pack_id);
