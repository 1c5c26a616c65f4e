-- Tenants: customers who see what is theirs and nothing else. What has no tenant is the fleet's own.

CREATE TABLE tenants (
    tenant_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created BIGINT NOT NULL
);

-- Whose a bucket is: its first order or ticket decides. Objects and receipts belong to whose bucket
-- they are in.
CREATE TABLE bucket_owners (
    bucket TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT REFERENCES tenants (tenant_id)
);
CREATE INDEX bucket_owners_by_tenant ON bucket_owners (tenant_id, bucket);
INSERT INTO bucket_owners (bucket) SELECT bucket FROM orders UNION SELECT bucket FROM tickets;

ALTER TABLE boxes ADD COLUMN tenant_id TEXT REFERENCES tenants (tenant_id);
ALTER TABLE orders ADD COLUMN tenant_id TEXT REFERENCES tenants (tenant_id);
ALTER TABLE tickets ADD COLUMN tenant_id TEXT REFERENCES tenants (tenant_id);
ALTER TABLE operators ADD COLUMN tenant_id TEXT REFERENCES tenants (tenant_id);
ALTER TABLE api_tokens ADD COLUMN tenant_id TEXT REFERENCES tenants (tenant_id);
CREATE INDEX boxes_by_tenant ON boxes (tenant_id, box_id);
CREATE INDEX orders_by_tenant ON orders (tenant_id, order_id);
CREATE INDEX tickets_by_tenant ON tickets (tenant_id, created, ticket_id);
