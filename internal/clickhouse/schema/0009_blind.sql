-- What the switch knows beyond a host's last silence, and the times in which the
-- hub itself could not have heard anybody.

CREATE TABLE IF NOT EXISTS hub_blind
(
    from_at   DateTime64(3, 'UTC') COMMENT 'Beginning of the interval.' CODEC(Delta, ZSTD(1)),
    to_at     DateTime64(3, 'UTC') COMMENT 'Its end, not included.' CODEC(Delta, ZSTD(1)),
    cause     LowCardinality(String) COMMENT 'process_down, not_ready, spool_full, suspended, auth_broken or listener_failing.',
    spool_id  LowCardinality(String) COMMENT 'Spool volume that the interval was written to.',
    spool_seq UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (from_at, to_at, cause)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Blind time: intervals in which the hub could not have accepted a report, each with its cause. They may overlap. Silence in them counts for nothing. Kept for ever.';

ALTER TABLE events ADD COLUMN IF NOT EXISTS hosts Array(String) COMMENT 'Of a mass_silence: the hosts that it lists; else empty.' CODEC(ZSTD(1)) AFTER suppressed_by;

ALTER TABLE events COMMENT COLUMN suppressed_by 'Why nobody is told of it: the maintenance window that swallowed the message, or retired; empty where it is told.';

ALTER TABLE switch_state
    ADD COLUMN IF NOT EXISTS customer_id LowCardinality(String) COMMENT 'Customer of the host at the decision; empty in rows of the first version.' AFTER host_id,
    ADD COLUMN IF NOT EXISTS lifecycle LowCardinality(String) DEFAULT 'active' COMMENT 'What the switch took the host for: active (watched), paused or retired.' AFTER decided_at,
    ADD COLUMN IF NOT EXISTS watched_from Nullable(DateTime64(3, 'UTC')) COMMENT 'When the host was unpaused or returned, while it has not reported since; else NULL.' AFTER lifecycle,
    ADD COLUMN IF NOT EXISTS folded_into String COMMENT 'event_id of the mass_silence that tells of this silence; empty where none.' CODEC(ZSTD(1)) AFTER watched_from,
    ADD COLUMN IF NOT EXISTS silences Array(DateTime64(3, 'UTC')) COMMENT 'Beginnings of the newest silences, oldest first: at most 6.' CODEC(ZSTD(1)) AFTER folded_into,
    ADD COLUMN IF NOT EXISTS flapping_spool_id LowCardinality(String) COMMENT 'Spool volume of the last report before the silence at which host_flapping was raised; empty where the host does not flap.' AFTER silences,
    ADD COLUMN IF NOT EXISTS flapping_spool_seq UInt64 COMMENT 'Sequence number of that report.' CODEC(ZSTD(1)) AFTER flapping_spool_id;

ALTER TABLE switch_state COMMENT COLUMN state 'ok, stale or down; never_seen where host_never_reported was raised and nothing came since.';

ALTER TABLE rejected_reports COMMENT COLUMN kind 'Kind of the record: 1 host report, 2 decision of the switch, 3 notice of the fleet, 4 blind time of the hub.';
