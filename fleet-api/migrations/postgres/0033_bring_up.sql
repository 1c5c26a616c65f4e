-- How boxes come online, folded from their journals: each boot, and each failure of a rung in it.

-- `reached` counts the rungs that have held at once, from the cable up; `last_ms` is how far of the
-- boot was told, by the box's steady clock.
CREATE TABLE bring_up_boots (
    box_id TEXT NOT NULL REFERENCES boxes (box_id),
    boot_id TEXT NOT NULL,
    began BIGINT NOT NULL,
    release TEXT NOT NULL,
    power_to_start_ms BIGINT NOT NULL,
    start_to_online_ms BIGINT,
    reached BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    PRIMARY KEY (box_id, boot_id)
);
CREATE INDEX bring_up_boots_by_time ON bring_up_boots (began, box_id, boot_id);

-- Named by the entry of the journal that tells of it: an entry is folded once, so a failure is
-- counted once. `lasted_ms` is absent while it lasts; `held_up_ms` counts while no lower rung failed.
CREATE TABLE bring_up_failures (
    box_id TEXT NOT NULL,
    epoch TEXT NOT NULL,
    number BIGINT NOT NULL,
    boot_id TEXT NOT NULL,
    code TEXT NOT NULL,
    evidence TEXT NOT NULL,
    release TEXT NOT NULL,
    began BIGINT NOT NULL,
    since_boot_ms BIGINT NOT NULL,
    held_up_ms BIGINT NOT NULL,
    lasted_ms BIGINT,
    fix TEXT,
    PRIMARY KEY (box_id, epoch, number),
    FOREIGN KEY (box_id, boot_id) REFERENCES bring_up_boots (box_id, boot_id)
);
CREATE INDEX bring_up_failures_by_time ON bring_up_failures (began, box_id);
CREATE INDEX bring_up_failures_of_boot ON bring_up_failures (box_id, boot_id, epoch, number);
CREATE INDEX bring_up_failures_open ON bring_up_failures (box_id) WHERE lasted_ms IS NULL;
