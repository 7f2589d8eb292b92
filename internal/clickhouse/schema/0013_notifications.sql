-- What became of the messages that tell people of events.

CREATE TABLE IF NOT EXISTS notifications
(
    at              DateTime64(3, 'UTC') COMMENT 'When the attempt ended, or the rest was decided.' CODEC(Delta, ZSTD(1)),
    channel         LowCardinality(String) COMMENT 'Channel: its owner, fleet or customer/<name>, and its name.',
    customer_id     LowCardinality(String) COMMENT 'Customer whose events the message is about; empty for operators'' events.',
    message_id      String COMMENT 'event_id of the event that the message tells of, or the id of a digest.' CODEC(ZSTD(1)),
    event_ids       Array(String) COMMENT 'Events that it tells of; of a digest in the row with status digested, which makes it, and empty in the rows of its attempts.' CODEC(ZSTD(1)),
    status          LowCardinality(String) COMMENT 'sent, failed (it is tried again), dead (refused, or not delivered for a day), collapsed (its trouble was over before anybody was told), digested (a digest counts it), dropped (its channel left the fleet) or retried (an operator put it back).',
    attempt         UInt32 COMMENT 'Number of the attempt, from 1; 0 where none was made.' CODEC(ZSTD(1)),
    latency_seconds Float64 COMMENT 'How long the attempt took.' CODEC(ZSTD(1)),
    error           LowCardinality(String) COMMENT 'Class of what went wrong, and the status of HTTP or SMTP where one came, as "busy (429)"; empty where nothing did.',
    spool_id        LowCardinality(String) COMMENT 'Spool volume that it was written to.',
    spool_seq       UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1,
    INDEX message_id_bloom message_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (channel, at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'Every attempt to deliver a message to a channel, and what else became of messages, once. Retention: clickhouse.retention.events.';

ALTER TABLE rejected_reports
    COMMENT COLUMN kind 'Kind of the record: 1 host report, 2 decision of the switch, 3 notice of the fleet, 4 blind time of the hub, 5 report of a controller, 6 event of a controller, 7 what became of messages.';
