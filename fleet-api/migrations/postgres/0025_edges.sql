-- Edges that hold boxes' sessions, where there may be several. Each extends its time while it lives; whose time is
-- over holds no session any more.

CREATE TABLE edges (
    edge_id TEXT NOT NULL PRIMARY KEY,
    started BIGINT NOT NULL,
    held_until BIGINT NOT NULL
);

-- The edge that took the last birth.
ALTER TABLE boxes ADD COLUMN edge_id TEXT;
-- When the state changed: other processes look for it.
ALTER TABLE boxes ADD COLUMN state_changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX boxes_by_edge ON boxes (edge_id, box_id) WHERE connected;
CREATE INDEX boxes_by_state_changed ON boxes (state_changed);

INSERT INTO worker_locks (name, holder, held_until) VALUES ('upkeep', '', 0), ('presence', '', 0), ('bulk', '', 0);
