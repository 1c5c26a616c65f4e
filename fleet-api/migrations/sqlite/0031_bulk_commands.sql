-- One command for every box that a filter finds. A preview holds what was found, so that what is sent
-- is what somebody has seen.

CREATE TABLE bulk_previews (
    preview_id TEXT NOT NULL PRIMARY KEY,
    filter TEXT NOT NULL,
    boxes TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX bulk_previews_by_expiry ON bulk_previews (expires);

CREATE TABLE bulk_commands (
    bulk_id TEXT NOT NULL PRIMARY KEY,
    filter TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    valid_for_secs BIGINT NOT NULL,
    state TEXT NOT NULL,
    proposal_id TEXT,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    cancelled_by TEXT,
    cancelled BIGINT
);
CREATE INDEX bulk_commands_by_time ON bulk_commands (created, bulk_id);

CREATE TABLE bulk_boxes (
    bulk_id TEXT NOT NULL REFERENCES bulk_commands (bulk_id),
    box_id TEXT NOT NULL REFERENCES boxes (box_id),
    command_id TEXT,
    reason TEXT,
    PRIMARY KEY (bulk_id, box_id)
);
CREATE INDEX bulk_boxes_waiting ON bulk_boxes (bulk_id, box_id)
    WHERE command_id IS NULL AND reason IS NULL;
