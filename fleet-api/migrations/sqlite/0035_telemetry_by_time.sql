-- Telemetry for years: samples by their time, five-minute and hourly rollups of them, and what came last
-- of each box apart, so that nothing that asks for it looks through the history.

CREATE TABLE telemetry_latest (
    box_id TEXT NOT NULL PRIMARY KEY REFERENCES boxes (box_id),
    at BIGINT NOT NULL,
    received BIGINT NOT NULL,
    detail TEXT NOT NULL
);
INSERT INTO telemetry_latest (box_id, at, received, detail)
    SELECT t.box_id, t.at, t.received, t.detail
    FROM telemetry t JOIN (SELECT box_id, max(at) AS at FROM telemetry GROUP BY box_id) AS l
    ON t.box_id = l.box_id AND t.at = l.at;

-- On PostgreSQL these are partitioned by time; here what is over is deleted.
ALTER TABLE telemetry RENAME TO telemetry_before;
CREATE TABLE telemetry (
    box_id TEXT NOT NULL,
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
    PRIMARY KEY (box_id, at)
) WITHOUT ROWID;
INSERT INTO telemetry (box_id, at, received, load_1m, memory_used_bytes, disk_free_bytes, celsius,
    network_sent_bytes, network_received_bytes, vault_used_bytes, pending_objects, pending_bytes)
    SELECT box_id, at, received, load_1m, memory_used_bytes, disk_free_bytes, celsius,
    network_sent_bytes, network_received_bytes, vault_used_bytes, pending_objects, pending_bytes
    FROM telemetry_before;
DROP TABLE telemetry_before;

-- `.._samples`: how many of the samples have the figures; a mean of means is weighed by it.
CREATE TABLE telemetry_5m (
    box_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    samples BIGINT NOT NULL,
    disk_samples BIGINT NOT NULL,
    celsius_samples BIGINT NOT NULL,
    vault_samples BIGINT NOT NULL,
    load_1m DOUBLE PRECISION NOT NULL,
    load_1m_min DOUBLE PRECISION NOT NULL,
    load_1m_max DOUBLE PRECISION NOT NULL,
    memory_used_bytes DOUBLE PRECISION NOT NULL,
    memory_used_bytes_min DOUBLE PRECISION NOT NULL,
    memory_used_bytes_max DOUBLE PRECISION NOT NULL,
    disk_free_bytes DOUBLE PRECISION,
    disk_free_bytes_avg DOUBLE PRECISION,
    disk_free_bytes_max DOUBLE PRECISION,
    celsius DOUBLE PRECISION,
    celsius_min DOUBLE PRECISION,
    celsius_avg DOUBLE PRECISION,
    network_sent_bytes DOUBLE PRECISION NOT NULL,
    network_received_bytes DOUBLE PRECISION NOT NULL,
    vault_used_bytes DOUBLE PRECISION,
    vault_used_bytes_min DOUBLE PRECISION,
    vault_used_bytes_max DOUBLE PRECISION,
    pending_objects DOUBLE PRECISION,
    pending_objects_min DOUBLE PRECISION,
    pending_objects_avg DOUBLE PRECISION,
    pending_bytes DOUBLE PRECISION,
    pending_bytes_min DOUBLE PRECISION,
    pending_bytes_avg DOUBLE PRECISION,
    PRIMARY KEY (box_id, at)
) WITHOUT ROWID;

CREATE TABLE telemetry_1h (
    box_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    samples BIGINT NOT NULL,
    disk_samples BIGINT NOT NULL,
    celsius_samples BIGINT NOT NULL,
    vault_samples BIGINT NOT NULL,
    load_1m DOUBLE PRECISION NOT NULL,
    load_1m_min DOUBLE PRECISION NOT NULL,
    load_1m_max DOUBLE PRECISION NOT NULL,
    memory_used_bytes DOUBLE PRECISION NOT NULL,
    memory_used_bytes_min DOUBLE PRECISION NOT NULL,
    memory_used_bytes_max DOUBLE PRECISION NOT NULL,
    disk_free_bytes DOUBLE PRECISION,
    disk_free_bytes_avg DOUBLE PRECISION,
    disk_free_bytes_max DOUBLE PRECISION,
    celsius DOUBLE PRECISION,
    celsius_min DOUBLE PRECISION,
    celsius_avg DOUBLE PRECISION,
    network_sent_bytes DOUBLE PRECISION NOT NULL,
    network_received_bytes DOUBLE PRECISION NOT NULL,
    vault_used_bytes DOUBLE PRECISION,
    vault_used_bytes_min DOUBLE PRECISION,
    vault_used_bytes_max DOUBLE PRECISION,
    pending_objects DOUBLE PRECISION,
    pending_objects_min DOUBLE PRECISION,
    pending_objects_avg DOUBLE PRECISION,
    pending_bytes DOUBLE PRECISION,
    pending_bytes_min DOUBLE PRECISION,
    pending_bytes_avg DOUBLE PRECISION,
    PRIMARY KEY (box_id, at)
) WITHOUT ROWID;

-- Five-minute buckets that samples came for when they may have been rolled up already, and when these came.
CREATE TABLE telemetry_late (
    box_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (box_id, at, received)
);

-- Until when each is rolled up, and since when it is kept whole.
CREATE TABLE telemetry_marks (
    series TEXT NOT NULL PRIMARY KEY,
    through BIGINT NOT NULL,
    kept_since BIGINT NOT NULL
);
INSERT INTO telemetry_marks (series, through, kept_since) VALUES ('samples', 0, 0), ('5m', 0, 0), ('1h', 0, 0);

INSERT INTO worker_locks (name, holder, held_until) VALUES ('telemetry', '', 0);
