-- The dead-man's switch: its events and its memory, both written through the spool.

CREATE TABLE IF NOT EXISTS events
(
    event_id        String COMMENT 'Deterministic id: the same event has the same id whoever computes it, however often.',
    type            LowCardinality(String) COMMENT 'Kind of event, as host_stale, host_down, host_recovered.',
    severity        LowCardinality(String) COMMENT 'info, warning or critical.',
    customer_id     LowCardinality(String) COMMENT 'Customer that the host belonged to at the event; empty for operators'' events.',
    host_id         String COMMENT 'Host that the event is about; empty where none.' CODEC(ZSTD(1)),
    guest_id        String COMMENT 'Guest that the event is about; empty where none.' CODEC(ZSTD(1)),
    at              DateTime64(3, 'UTC') COMMENT 'Instant at which the condition first held.' CODEC(Delta, ZSTD(1)),
    detected_at     DateTime64(3, 'UTC') COMMENT 'Slot time of the evaluation that found it.' CODEC(Delta, ZSTD(1)),
    silence_seconds Float64 COMMENT 'at minus the last report before the silence, in seconds.' CODEC(ZSTD(1)),
    reason          String COMMENT 'Name of the rule that decided, with the figures that led to it.' CODEC(ZSTD(1)),
    source          LowCardinality(String) COMMENT 'Who raised it: switch, fleet, hub or controller.',
    folded_into     String COMMENT 'event_id of the mass event that this one is part of; empty where none.' CODEC(ZSTD(1)),
    caused_by       String COMMENT 'event_id of the event that explains this one; empty where none.' CODEC(ZSTD(1)),
    suppressed_by   String COMMENT 'Maintenance window that swallowed the message; empty where none.' CODEC(ZSTD(1)),
    spool_id        LowCardinality(String) COMMENT 'Spool volume that the event was written to.',
    spool_seq       UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(detected_at)
ORDER BY (customer_id, host_id, at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'Every event, once. Retention: clickhouse.retention.events.';

CREATE TABLE IF NOT EXISTS switch_state
(
    host_id           String COMMENT 'Host.' CODEC(ZSTD(1)),
    state             LowCardinality(String) COMMENT 'ok, stale or down.',
    since             DateTime64(3, 'UTC') COMMENT 'Instant at which the condition of this state first held.' CODEC(Delta, ZSTD(1)),
    silent            UInt8 COMMENT '1 where the state was found at the first look and its alarm was never raised.',
    last_report_at    DateTime64(3, 'UTC') COMMENT 'received_at of the report that names the episode: the last one before the silence.' CODEC(Delta, ZSTD(1)),
    episode_spool_id  LowCardinality(String) COMMENT 'Spool volume of that report.',
    episode_spool_seq UInt64 COMMENT 'Sequence number of that report.' CODEC(ZSTD(1)),
    decided_at        DateTime64(3, 'UTC') COMMENT 'Slot time of the evaluation that decided it; grows with each row of a host, also when the clock steps back.' CODEC(Delta, ZSTD(1)),
    spool_id          LowCardinality(String) COMMENT 'Spool volume that the decision was written to.',
    spool_seq         UInt64 COMMENT 'Sequence number of the decision in the spool; an event of the same decision has the same one.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (host_id, decided_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'The switch''s memory: one row a change of a host''s state. The newest row of a host is its state.';
