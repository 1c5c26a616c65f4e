-- Why a box is held back: one row for each that is. `detail` has the PCRs that differ, JSON;
-- `accepted` is when the box last proved a state that is accepted after all.
CREATE TABLE quarantines (
    box_id TEXT NOT NULL PRIMARY KEY REFERENCES boxes (box_id),
    since BIGINT NOT NULL,
    held_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    accepted BIGINT
);
