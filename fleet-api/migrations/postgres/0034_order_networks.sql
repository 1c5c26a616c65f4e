-- Orders' networks: what people say of them, what a probe found, and the probes' reports.

-- `said` and `found` are answers to the questionnaire, JSON; `said_by` names who said which, and
-- `report_id` the report that `found` comes from.
CREATE TABLE order_networks (
    order_id TEXT NOT NULL PRIMARY KEY REFERENCES orders (order_id),
    said TEXT NOT NULL,
    said_by TEXT NOT NULL,
    found TEXT NOT NULL,
    report_id TEXT,
    updated BIGINT NOT NULL
);

-- Named by the hash of what was signed: the same report twice is one.
CREATE TABLE probe_reports (
    order_id TEXT NOT NULL REFERENCES orders (order_id),
    report_id TEXT NOT NULL,
    received BIGINT NOT NULL,
    sent_by TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (order_id, report_id)
);
CREATE INDEX probe_reports_by_time ON probe_reports (order_id, received, report_id);
