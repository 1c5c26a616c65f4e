-- Alerts: rules, what they found, who is told. A row of `alerts` in state `pending` is not an alert
-- yet: its rule has to see the same for a while.

CREATE TABLE alert_rules (
    rule_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    raise_at DOUBLE PRECISION NOT NULL,
    clear_at DOUBLE PRECISION NOT NULL,
    hold_secs BIGINT NOT NULL,
    clear_secs BIGINT NOT NULL,
    severity TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    changed BIGINT NOT NULL,
    changed_by TEXT NOT NULL
);
INSERT INTO alert_rules (rule_id, name, kind, raise_at, clear_at, hold_secs, clear_secs, severity, enabled, changed, changed_by)
VALUES
    ('offline', 'Box is offline', 'offline_minutes', 15, 0, 0, 120, 'critical', TRUE, 0, 'default'),
    ('disk-free', 'Disk is nearly full', 'disk_free_percent', 10, 12, 300, 300, 'warning', TRUE, 0, 'default'),
    ('temperature', 'Box is hot', 'celsius', 85, 80, 300, 300, 'warning', TRUE, 0, 'default'),
    ('certificate', 'Certificate is not renewed', 'certificate_hours', 12, 24, 600, 60, 'critical', TRUE, 0, 'default'),
    ('vault-fill', 'Vault is nearly full', 'vault_fill_percent', 90, 85, 300, 300, 'warning', TRUE, 0, 'default'),
    ('stuck-transfer', 'Transfer is stuck', 'transfer_minutes', 360, 180, 600, 300, 'warning', TRUE, 0, 'default'),
    ('failures', 'Box reports failures', 'failures_per_hour', 3, 0, 0, 60, 'warning', TRUE, 0, 'default');

CREATE TABLE alerts (
    alert_id TEXT NOT NULL PRIMARY KEY,
    box_id TEXT NOT NULL REFERENCES boxes (box_id),
    rule_id TEXT NOT NULL,
    rule_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    state TEXT NOT NULL,
    measured DOUBLE PRECISION NOT NULL,
    since BIGINT NOT NULL,
    opened BIGINT NOT NULL,
    clear_since BIGINT,
    acknowledged BIGINT,
    acknowledged_by TEXT,
    resolved BIGINT,
    updated BIGINT NOT NULL
);
-- A rule has at most one alert on a box that is not over, whoever evaluates it.
CREATE UNIQUE INDEX alerts_one_at_a_time ON alerts (box_id, rule_id) WHERE state <> 'resolved';
CREATE INDEX alerts_by_time ON alerts (opened, alert_id);
CREATE INDEX alerts_by_box ON alerts (box_id, opened, alert_id);

CREATE TABLE alert_events (
    alert_id TEXT NOT NULL REFERENCES alerts (alert_id),
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (alert_id, number)
);

CREATE TABLE alert_channels (
    channel_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    secret_sealed BYTEA,
    severity TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE alert_deliveries (
    delivery_id TEXT NOT NULL PRIMARY KEY,
    channel_id TEXT NOT NULL REFERENCES alert_channels (channel_id) ON DELETE CASCADE,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    due BIGINT NOT NULL,
    reason TEXT,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX alert_deliveries_due ON alert_deliveries (due, delivery_id) WHERE state = 'waiting';
CREATE INDEX alert_deliveries_by_channel ON alert_deliveries (channel_id, created, delivery_id);

-- Work that one process at a time does: it holds the lock until a time, and extends it while at work.
CREATE TABLE worker_locks (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    held_until BIGINT NOT NULL
);
INSERT INTO worker_locks (name, holder, held_until) VALUES ('alerts', '', 0);

CREATE INDEX uploads_open ON uploads (box_id, updated) WHERE state IN ('started', 'completing');
