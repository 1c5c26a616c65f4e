-- Commands that belong to a trace, until it is exported; empty where traces are off. The rest is in the command
-- itself: its state, and when that came.
CREATE TABLE command_traces (
    command_id TEXT NOT NULL PRIMARY KEY REFERENCES commands (command_id),
    trace_id TEXT NOT NULL,
    parent_id TEXT,
    begun BIGINT NOT NULL,
    created BIGINT NOT NULL,
    sent BIGINT,
    accepted BIGINT
);

INSERT INTO worker_locks (name, holder, held_until) VALUES ('traces', '', 0);
