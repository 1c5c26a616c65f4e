-- What takes something away for good waits here until a second person has approved it. Accounts are
-- people; a token stands for the account that made it.

CREATE TABLE proposals (
    proposal_id TEXT NOT NULL PRIMARY KEY,
    box_id TEXT REFERENCES boxes (box_id),
    bulk_id TEXT,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    valid_for_secs BIGINT NOT NULL,
    reason TEXT NOT NULL,
    proposed_by TEXT NOT NULL,
    proposer TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    state TEXT NOT NULL,
    decided_by TEXT,
    decider TEXT,
    decided BIGINT,
    note TEXT,
    command_id TEXT
);
CREATE INDEX proposals_by_time ON proposals (created, proposal_id);
CREATE INDEX proposals_by_box ON proposals (box_id, created, proposal_id);
CREATE INDEX proposals_open ON proposals (expires) WHERE state = 'open';

ALTER TABLE commands ADD COLUMN proposal_id TEXT;
ALTER TABLE api_tokens ADD COLUMN owner TEXT;
UPDATE api_tokens SET owner = created_by WHERE created_by NOT LIKE '%:%';
