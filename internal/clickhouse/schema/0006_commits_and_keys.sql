-- What became of each head of the fleet repository, and its keys: which there
-- are, and when each was last used. Never a key, nor its digest.

CREATE TABLE IF NOT EXISTS fleet_commits
(
    revision     String COMMENT 'Commit of the fleet repository.' CODEC(ZSTD(1)),
    author       String COMMENT 'Name and address that the commit gives for its author; proves nothing.' CODEC(ZSTD(1)),
    committed_at DateTime64(3, 'UTC') COMMENT 'Time that the commit gives, clamped to 1900-2262; the committer''s clock, may be wrong.' CODEC(Delta, ZSTD(1)),
    subject      String COMMENT 'First line of the commit''s message.' CODEC(ZSTD(1)),
    signer       String COMMENT 'Who signed the commit, by the allowed signers; empty where signatures are not required.' CODEC(ZSTD(1)),
    verdict      LowCardinality(String) COMMENT 'applied, held (until an operator''s word) or rejected (until another commit).',
    reason       LowCardinality(String) COMMENT 'Type of the event that tells of it, as fleet_held; empty where it was applied.',
    why          String COMMENT 'For people: what is wrong and what to do next; empty where there is nothing to say.' CODEC(ZSTD(1)),
    decided_at   DateTime64(3, 'UTC') COMMENT 'When the hub decided.' CODEC(Delta, ZSTD(1)),
    hosts        UInt32 COMMENT 'Hosts in the commit that are not retired.' CODEC(T64, ZSTD(1)),
    added        UInt32 COMMENT 'Hosts that it adds to the commit that was in force.' CODEC(T64, ZSTD(1)),
    removed      UInt32 COMMENT 'Hosts that it takes from the commit that was in force: retired, or no longer named.' CODEC(T64, ZSTD(1)),
    changed      UInt32 COMMENT 'Hosts that it changes.' CODEC(T64, ZSTD(1)),
    bad_files    UInt32 COMMENT 'Hosts whose file has a mistake and that keep their last good record.' CODEC(T64, ZSTD(1)),
    spool_id     LowCardinality(String) COMMENT 'Spool volume that the verdict was written to.',
    spool_seq    UInt64 COMMENT 'Sequence number in the spool; an event of the same verdict has the same one.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (decided_at, revision)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'One row a verdict on a head of the fleet repository: applied, held or rejected, and why. Kept for ever.';

ALTER TABLE rejected_reports COMMENT COLUMN kind 'Kind of the record: 1 host report, 2 decision of the switch, 3 notice of the fleet.';

CREATE TABLE IF NOT EXISTS key_last
(
    host_id      String COMMENT 'Host that reported.',
    key_id       LowCardinality(String) COMMENT 'Id of the key that authorised its reports: of the host (k1), or fleet/k1 for a global one; never the key.',
    last_used_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'received_at of the newest report under the key.'
)
ENGINE = AggregatingMergeTree
ORDER BY (host_id, key_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Last use of each key by each host, as aggregates; the view fleet_keys reads it. For operators only.';

CREATE MATERIALIZED VIEW IF NOT EXISTS key_last_feed TO key_last
(
    host_id      String COMMENT 'As in key_last.',
    key_id       LowCardinality(String) COMMENT 'As in key_last.',
    last_used_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'As in key_last.'
)
AS SELECT
    host_id,
    key_id,
    {{key_last_values}}
FROM host_reports
GROUP BY host_id, key_id
COMMENT 'Feeds key_last from host_reports; not for reading.';

-- What was reported before; the feed has what comes meanwhile. May be repeated.
INSERT INTO key_last
SELECT
    host_id,
    key_id,
    {{key_last_values}}
FROM host_reports
GROUP BY host_id, key_id
SETTINGS insert_deduplicate = 0;

CREATE TABLE IF NOT EXISTS fleet_key_changes
(
    generation  UInt64 COMMENT 'Grows with each change that is written; the newest row of a key has the greatest.',
    revision    String COMMENT 'Commit of the fleet repository.' CODEC(ZSTD(1)),
    applied_at  DateTime64(3, 'UTC') COMMENT 'When the hub put that commit in force.',
    owner       String COMMENT 'What the key is bound to: host/<host_id>, customer/<customer_id> or fleet.',
    customer_id LowCardinality(String) COMMENT 'Customer that owns the key, or the host that does; empty for a global key.',
    host_id     String COMMENT 'Host that owns the key; empty for a customer''s or a global key.',
    key_id      LowCardinality(String) COMMENT 'Id of the key, unique within its owner.',
    not_after   Nullable(DateTime64(3, 'UTC')) COMMENT 'Last instant at which the key may be used; NULL where it does not expire.',
    removed     UInt8 COMMENT '1 where the key is no longer in the repository, or its host is retired.'
)
ENGINE = MergeTree
ORDER BY (owner, key_id, generation)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Keys of the fleet repository, one row a change; the newest generation of an (owner, key_id) holds. For operators only.';

CREATE OR REPLACE VIEW fleet_keys
(
    owner        String COMMENT 'What the key is bound to: host/<host_id>, customer/<customer_id> or fleet.',
    customer_id  String COMMENT 'Customer that owns the key, or the host that does; empty for a global key.',
    host_id      String COMMENT 'Host that owns the key; empty for a customer''s or a global key.',
    key_id       String COMMENT 'Id of the key, unique within its owner; never the key.',
    not_after    Nullable(DateTime64(3, 'UTC')) COMMENT 'Last instant at which the key may be used; NULL where it does not expire.',
    revision     String COMMENT 'Commit that last changed the key''s entry in the register.',
    applied_at   DateTime64(3, 'UTC') COMMENT 'When the hub put that commit in force.',
    last_used_at Nullable(DateTime64(3, 'UTC')) COMMENT 'received_at of the newest report under the key; NULL where there is none. Uses of an earlier key of the same owner and id, that was removed, do not count.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    k.owner AS owner,
    k.entry.1 AS customer_id,
    k.entry.2 AS host_id,
    k.key_id AS key_id,
    k.entry.3 AS not_after,
    k.entry.4 AS revision,
    k.entry.5 AS applied_at,
    if(u.owner = '', NULL, u.last_used_at) AS last_used_at
FROM
(
    SELECT owner, toString(key_id) AS key_id, argMax((toString(customer_id), host_id, not_after, revision, applied_at, removed), generation) AS entry
    FROM fleet_key_changes GROUP BY owner, key_id
    HAVING entry.6 = 0
) AS k
LEFT JOIN
(
    {{key_uses}}
) AS u ON u.owner = k.owner AND u.key_id = k.key_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a key in the register of a host that is not retired, of a customer or of the fleet: until when it holds and when it was last used. For operators only.';
