-- Accounts that log in by a provider's word (OpenID Connect), and answers that were used.

CREATE TABLE identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    operator TEXT NOT NULL UNIQUE REFERENCES operators (name) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);

CREATE TABLE log_in_attempts (
    state_hash TEXT NOT NULL PRIMARY KEY,
    expires BIGINT NOT NULL
);
CREATE INDEX log_in_attempts_by_end ON log_in_attempts (expires);
