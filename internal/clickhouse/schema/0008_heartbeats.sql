-- Which hub writes to this database: one hub serves one database.

CREATE TABLE IF NOT EXISTS hub_heartbeats
(
    data_dir_id String COMMENT 'Random id of the data directory of the hub, kept in its file id.',
    at          DateTime64(3, 'UTC') COMMENT 'Clock of that hub when it said so.',
    stopped     UInt8 COMMENT '1 where the hub said that it stops.',
    machine     String COMMENT 'Host name of the machine that it runs on.',
    data_dir    String COMMENT 'Path of the data directory.',
    version     String COMMENT 'Version of the hub.'
)
ENGINE = ReplacingMergeTree(at)
ORDER BY data_dir_id
SETTINGS old_parts_lifetime = 480
COMMENT 'The newest sign of life of each hub that ever served this database; a hub does not start beside another one''s that is younger than a minute. For operators only.';
