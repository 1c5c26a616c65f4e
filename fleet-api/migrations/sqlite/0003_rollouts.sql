-- A rollout can be aborted; each of its boxes shows what it ran before and after.

ALTER TABLE rollouts ADD COLUMN aborted BIGINT;
ALTER TABLE rollouts ADD COLUMN aborted_by TEXT;
ALTER TABLE rollout_boxes ADD COLUMN version_before TEXT;
ALTER TABLE rollout_boxes ADD COLUMN version_after TEXT;
