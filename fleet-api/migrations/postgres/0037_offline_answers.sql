-- Answers to requests that boxes made without a line. Named by the hash of the request: the same request
-- has the same answer. `made_at` is the factory's record that it was judged by; `resets` and `clock_ms`
-- are the TPM's own, so that a request made before one that was answered is refused.
CREATE TABLE offline_answers (
    box_id TEXT NOT NULL REFERENCES boxes (box_id),
    request_id TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    resets BIGINT NOT NULL,
    clock_ms BIGINT NOT NULL,
    answered BIGINT NOT NULL,
    answered_by TEXT NOT NULL,
    expires BIGINT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (box_id, request_id)
);
