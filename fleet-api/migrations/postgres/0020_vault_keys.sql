-- Vaults' keys, encrypted for the depot. The newest one of a box replaces the one before.
CREATE TABLE vault_keys (
    box_id TEXT NOT NULL PRIMARY KEY REFERENCES boxes (box_id),
    detail TEXT NOT NULL,
    received BIGINT NOT NULL
);
