-- What was found out about the buckets that objects go to.
CREATE TABLE destinations (
    bucket TEXT NOT NULL PRIMARY KEY,
    detail TEXT NOT NULL,
    usable BOOLEAN NOT NULL,
    checked BIGINT NOT NULL
);
