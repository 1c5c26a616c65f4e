-- Times are integer milliseconds UTC, JSON is text. The folder for the other database holds the
-- same schema; a test compares them. Texts that are paged by sort by their bytes, as in SQLite.

CREATE TABLE boxes (
    box_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    label TEXT NOT NULL,
    site TEXT NOT NULL,
    order_id TEXT COLLATE "C",
    hardware TEXT NOT NULL,
    inventory_jws TEXT NOT NULL,
    ek_sha256 TEXT NOT NULL UNIQUE,
    iak_name TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    connected BOOLEAN NOT NULL,
    connected_since BIGINT,
    last_seen BIGINT,
    birth_at BIGINT,
    session_id TEXT,
    boot_id TEXT,
    epoch TEXT COLLATE "C",
    agent_version TEXT,
    os_version TEXT,
    capabilities TEXT NOT NULL,
    rungs TEXT NOT NULL,
    lan_urls TEXT NOT NULL,
    certificate_serial TEXT,
    certificate_expires BIGINT,
    command_counter BIGINT NOT NULL,
    desired_version BIGINT NOT NULL,
    applied_version BIGINT NOT NULL
);
CREATE INDEX boxes_by_certificate ON boxes (certificate_serial);

CREATE TABLE challenges (
    challenge_id TEXT NOT NULL PRIMARY KEY,
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    nonce BYTEA NOT NULL,
    secret BYTEA NOT NULL,
    detail TEXT NOT NULL,
    expires BIGINT NOT NULL,
    used BIGINT
);
CREATE INDEX challenges_by_expiry ON challenges (expires);

CREATE TABLE presence (
    presence_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    at BIGINT NOT NULL,
    session_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX presence_by_time ON presence (box_id, at, presence_id);

CREATE TABLE telemetry (
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    at BIGINT NOT NULL,
    received BIGINT NOT NULL,
    load_1m DOUBLE PRECISION NOT NULL,
    memory_used_bytes BIGINT NOT NULL,
    disk_free_bytes BIGINT,
    celsius DOUBLE PRECISION,
    network_sent_bytes BIGINT NOT NULL,
    network_received_bytes BIGINT NOT NULL,
    vault_used_bytes BIGINT,
    pending_objects BIGINT,
    pending_bytes BIGINT,
    detail TEXT NOT NULL,
    PRIMARY KEY (box_id, at)
);

CREATE TABLE journal_epochs (
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    epoch TEXT COLLATE "C" NOT NULL,
    through BIGINT NOT NULL,
    begun BIGINT NOT NULL,
    PRIMARY KEY (box_id, epoch)
);

CREATE TABLE journal (
    box_id TEXT COLLATE "C" NOT NULL,
    epoch TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    received BIGINT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (box_id, epoch, number),
    FOREIGN KEY (box_id, epoch) REFERENCES journal_epochs (box_id, epoch)
);
CREATE INDEX journal_by_time ON journal (box_id, received, epoch, number);

CREATE TABLE rollouts (
    rollout_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    sha256 TEXT NOT NULL,
    length BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE commands (
    command_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    counter BIGINT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    jws TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    state TEXT NOT NULL,
    percent BIGINT,
    progress TEXT,
    reason TEXT,
    result TEXT,
    updated BIGINT NOT NULL,
    rollout_id TEXT COLLATE "C" REFERENCES rollouts (rollout_id),
    UNIQUE (box_id, counter)
);
CREATE INDEX commands_open ON commands (expires)
    WHERE state IN ('queued', 'sent', 'accepted');
CREATE INDEX commands_by_time ON commands (box_id, created, command_id);

CREATE TABLE rollout_boxes (
    rollout_id TEXT COLLATE "C" NOT NULL REFERENCES rollouts (rollout_id),
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    command_id TEXT COLLATE "C",
    state TEXT NOT NULL,
    step TEXT,
    reason TEXT,
    updated BIGINT NOT NULL,
    PRIMARY KEY (rollout_id, box_id)
);

CREATE TABLE releases (
    target TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    length BIGINT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE desired (
    box_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES boxes (box_id),
    version BIGINT NOT NULL,
    detail TEXT NOT NULL,
    jws TEXT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE reported (
    box_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES boxes (box_id),
    desired_version BIGINT NOT NULL,
    detail TEXT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE orders (
    order_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    customer TEXT NOT NULL,
    bucket TEXT COLLATE "C" NOT NULL,
    note TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE tickets (
    ticket_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    order_id TEXT COLLATE "C" REFERENCES orders (order_id),
    bucket TEXT COLLATE "C" NOT NULL,
    access_key TEXT NOT NULL UNIQUE,
    secret_sealed BYTEA NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT
);
CREATE INDEX tickets_by_box ON tickets (box_id, expires);

CREATE TABLE uploads (
    upload_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    bucket TEXT COLLATE "C" NOT NULL,
    object_key TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    ticket_id TEXT COLLATE "C" NOT NULL REFERENCES tickets (ticket_id),
    s3_upload_id TEXT,
    bytes BIGINT NOT NULL,
    blake3 TEXT NOT NULL,
    content_type TEXT,
    metadata TEXT NOT NULL,
    part_bytes BIGINT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (box_id, bucket, object_key, version)
);
CREATE INDEX uploads_by_time ON uploads (box_id, created, upload_id);

CREATE TABLE objects (
    bucket TEXT COLLATE "C" NOT NULL,
    object_key TEXT COLLATE "C" NOT NULL,
    box_id TEXT COLLATE "C" NOT NULL REFERENCES boxes (box_id),
    version BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    blake3 TEXT NOT NULL,
    content_type TEXT,
    upload_id TEXT COLLATE "C" NOT NULL,
    verified BIGINT NOT NULL,
    PRIMARY KEY (bucket, object_key)
);

CREATE TABLE operators (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,
    operator TEXT NOT NULL REFERENCES operators (name) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX sessions_by_expiry ON sessions (expires);

CREATE TABLE api_tokens (
    token_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    role TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT
);

CREATE TABLE audit (
    number BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL
);

-- One row: where the chain of the audit ends. Updating it is also the lock that keeps two
-- processes from continuing the chain at the same place.
CREATE TABLE audit_head (
    only_row BIGINT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head (only_row, number, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

CREATE TABLE settings (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
