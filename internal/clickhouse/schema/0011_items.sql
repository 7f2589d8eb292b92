-- The lists of reports as rows, and what the deadlines of guests are judged by.
--
-- Agents repeat the elements of their lists in report after report. A storage
-- target is a measurement, one row a report, and part of the stream. The other
-- elements stand in tables of which the row with the greatest version counts, whose
-- insert may be repeated at will; the views over them have each element once, at
-- every moment.

CREATE TABLE IF NOT EXISTS storage_target_reports
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the host belonged to when the report was accepted.',
    host_id     String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    name        String COMMENT 'Name of the target, unique in the report; empty where absent.' CODEC(ZSTD(1)),
    type        LowCardinality(String) COMMENT 'Kind of the target, as zfspool or pbs; empty where absent.',
    status      LowCardinality(String) COMMENT 'Status as reported, as available; empty where absent.',
    total_bytes UInt64 COMMENT 'Size in bytes; 0 where absent.' CODEC(T64, ZSTD(1)),
    used_bytes  UInt64 COMMENT 'Used part in bytes; 0 where absent.' CODEC(T64, ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged the report.',
    spool_seq   UInt64 COMMENT 'Sequence number of the report in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (host_id, name, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row a storage target and report. Retention: clickhouse.retention.guests.';

ALTER TABLE host_reports ADD COLUMN IF NOT EXISTS storage_target_total UInt32 COMMENT 'Number of rows of this report in storage_target_reports; 0 in rows of before that table.' CODEC(T64, ZSTD(1)) AFTER guest_running;

CREATE TABLE IF NOT EXISTS backup_items
(
    received_at  DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that the row is of: the first that had the success, else the newest that had the item.' CODEC(Delta, ZSTD(1)),
    customer_id  LowCardinality(String) COMMENT 'Customer that the host belonged to then.',
    host_id      String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    guest_id     String COMMENT '<host_id>/<vmid>.' CODEC(ZSTD(1)),
    vmid         UInt32 COMMENT 'Proxmox id of the guest, unique on its host.' CODEC(T64, ZSTD(1)),
    target       String COMMENT 'Name of the storage target; empty where absent.' CODEC(ZSTD(1)),
    started_at   DateTime64(3, 'UTC') COMMENT 'When it began. Agent clock, clamped to 1900-2262.' CODEC(Delta, ZSTD(1)),
    finished_at  Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ended; NULL while it runs. Agent clock, clamped to 1900-2262.' CODEC(Delta, ZSTD(1)),
    status       LowCardinality(String) COMMENT 'As reported; ok is a success.',
    size_bytes   UInt64 COMMENT 'Size of the backup in bytes; 0 where absent.' CODEC(T64, ZSTD(1)),
    error        String COMMENT 'What went wrong, as reported; empty where absent.' CODEC(ZSTD(1)),
    succeeded_at Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the success counts: finished_at, but never later than received_at; NULL where it did not succeed.' CODEC(Delta, ZSTD(1)),
    spool_id     LowCardinality(String) COMMENT 'Spool volume that acknowledged that report.',
    spool_seq    UInt64 COMMENT 'Sequence number of that report in the spool.' CODEC(Delta, ZSTD(1)),
    version      UInt128 MATERIALIZED if(isNull(succeeded_at), {{version}}, bitNot({{version}})) COMMENT 'Greatest in the row that counts: the first with the success, else the newest.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (host_id, vmid, target, started_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'One row a backup of a guest, however many reports repeat it; several rows of one may be there, of which the greatest version counts. The view backup_reports reads it. Retention: clickhouse.retention.items.';

CREATE OR REPLACE VIEW backup_reports
(
    received_at  DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that the row is of: the first that had the success, else the newest that had the item.',
    customer_id  String COMMENT 'Customer that the host belonged to then.',
    host_id      String COMMENT 'Host that reported.',
    guest_id     String COMMENT '<host_id>/<vmid>.',
    vmid         UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    target       String COMMENT 'Name of the storage target; empty where absent.',
    started_at   DateTime64(3, 'UTC') COMMENT 'When it began. Agent clock, clamped to 1900-2262.',
    finished_at  Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ended; NULL while it runs. Agent clock, clamped to 1900-2262.',
    status       String COMMENT 'As reported; ok is a success.',
    size_bytes   UInt64 COMMENT 'Size of the backup in bytes; 0 where absent.',
    error        String COMMENT 'What went wrong, as reported; empty where absent.',
    succeeded_at Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the success counts: finished_at, but never later than received_at; NULL where it did not succeed.',
    spool_id     String COMMENT 'Spool volume that acknowledged that report.',
    spool_seq    UInt64 COMMENT 'Sequence number of that report in the spool.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    received_at,
    toString(customer_id) AS customer_id,
    host_id,
    guest_id,
    vmid,
    target,
    started_at,
    finished_at,
    toString(status) AS status,
    size_bytes,
    error,
    succeeded_at,
    toString(spool_id) AS spool_id,
    spool_seq
FROM backup_items FINAL
COMMENT 'One row a backup of a guest, however many reports repeat it. Retention: clickhouse.retention.items.';

CREATE TABLE IF NOT EXISTS restore_test_items
(
    received_at      DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that the row is of: the first that had the success, else the newest that had the item.' CODEC(Delta, ZSTD(1)),
    customer_id      LowCardinality(String) COMMENT 'Customer that the host belonged to then.',
    host_id          String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    guest_id         String COMMENT '<host_id>/<vmid>.' CODEC(ZSTD(1)),
    vmid             UInt32 COMMENT 'Proxmox id of the guest, unique on its host.' CODEC(T64, ZSTD(1)),
    tested_at        DateTime64(3, 'UTC') COMMENT 'When it was tested. Agent clock, clamped to 1900-2262.' CODEC(Delta, ZSTD(1)),
    backup_time      DateTime64(3, 'UTC') COMMENT 'Time of the backup that was restored; 1900 where absent. Agent clock, clamped to 1900-2262.' CODEC(Delta, ZSTD(1)),
    status           LowCardinality(String) COMMENT 'As reported; ok is a success.',
    duration_seconds Float64 COMMENT 'How long the test took; 0 where absent.' CODEC(ZSTD(1)),
    succeeded_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the success counts: tested_at, but never later than received_at; NULL where it did not succeed.' CODEC(Delta, ZSTD(1)),
    spool_id         LowCardinality(String) COMMENT 'Spool volume that acknowledged that report.',
    spool_seq        UInt64 COMMENT 'Sequence number of that report in the spool.' CODEC(Delta, ZSTD(1)),
    version          UInt128 MATERIALIZED if(isNull(succeeded_at), {{version}}, bitNot({{version}})) COMMENT 'Greatest in the row that counts: the first with the success, else the newest.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (host_id, vmid, tested_at, backup_time)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'One row a restore test of a guest, however many reports repeat it; several rows of one may be there, of which the greatest version counts. The view restore_test_reports reads it. Retention: clickhouse.retention.items.';

CREATE OR REPLACE VIEW restore_test_reports
(
    received_at      DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that the row is of: the first that had the success, else the newest that had the item.',
    customer_id      String COMMENT 'Customer that the host belonged to then.',
    host_id          String COMMENT 'Host that reported.',
    guest_id         String COMMENT '<host_id>/<vmid>.',
    vmid             UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    tested_at        DateTime64(3, 'UTC') COMMENT 'When it was tested. Agent clock, clamped to 1900-2262.',
    backup_time      DateTime64(3, 'UTC') COMMENT 'Time of the backup that was restored; 1900 where absent. Agent clock, clamped to 1900-2262.',
    status           String COMMENT 'As reported; ok is a success.',
    duration_seconds Float64 COMMENT 'How long the test took; 0 where absent.',
    succeeded_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the success counts: tested_at, but never later than received_at; NULL where it did not succeed.',
    spool_id         String COMMENT 'Spool volume that acknowledged that report.',
    spool_seq        UInt64 COMMENT 'Sequence number of that report in the spool.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    received_at,
    toString(customer_id) AS customer_id,
    host_id,
    guest_id,
    vmid,
    tested_at,
    backup_time,
    toString(status) AS status,
    duration_seconds,
    succeeded_at,
    toString(spool_id) AS spool_id,
    spool_seq
FROM restore_test_items FINAL
COMMENT 'One row a restore test of a guest, however many reports repeat it. Retention: clickhouse.retention.items.';

CREATE TABLE IF NOT EXISTS pbs_snapshot_items
(
    received_at  DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that the row is of: the first that had it as verified, else the newest that had it.' CODEC(Delta, ZSTD(1)),
    customer_id  LowCardinality(String) COMMENT 'Customer that the host belonged to then.',
    host_id      String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    guest_id     String COMMENT '<host_id>/<vmid>.' CODEC(ZSTD(1)),
    vmid         UInt32 COMMENT 'Proxmox id of the guest, unique on its host.' CODEC(T64, ZSTD(1)),
    datastore    String COMMENT 'Datastore of the server; empty where absent.' CODEC(ZSTD(1)),
    taken_at     DateTime64(3, 'UTC') COMMENT 'When it was taken. Agent clock, clamped to 1900-2262.' CODEC(Delta, ZSTD(1)),
    size_bytes   UInt64 COMMENT 'Size of the snapshot in bytes; 0 where absent.' CODEC(T64, ZSTD(1)),
    verified     Bool COMMENT 'Whether the server has read it through and found it whole.',
    succeeded_at Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the verified snapshot counts: taken_at, but never later than received_at; NULL where it is not verified.' CODEC(Delta, ZSTD(1)),
    spool_id     LowCardinality(String) COMMENT 'Spool volume that acknowledged that report.',
    spool_seq    UInt64 COMMENT 'Sequence number of that report in the spool.' CODEC(Delta, ZSTD(1)),
    version      UInt128 MATERIALIZED if(isNull(succeeded_at), {{version}}, bitNot({{version}})) COMMENT 'Greatest in the row that counts: the first with the success, else the newest.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (host_id, vmid, datastore, taken_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'One row a snapshot of a guest in a Proxmox Backup Server, however many reports repeat it; several rows of one may be there, of which the greatest version counts. The view pbs_snapshot_reports reads it. Retention: clickhouse.retention.items.';

CREATE OR REPLACE VIEW pbs_snapshot_reports
(
    received_at  DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that the row is of: the first that had it as verified, else the newest that had it.',
    customer_id  String COMMENT 'Customer that the host belonged to then.',
    host_id      String COMMENT 'Host that reported.',
    guest_id     String COMMENT '<host_id>/<vmid>.',
    vmid         UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    datastore    String COMMENT 'Datastore of the server; empty where absent.',
    taken_at     DateTime64(3, 'UTC') COMMENT 'When it was taken. Agent clock, clamped to 1900-2262.',
    size_bytes   UInt64 COMMENT 'Size of the snapshot in bytes; 0 where absent.',
    verified     Bool COMMENT 'Whether the server has read it through and found it whole.',
    succeeded_at Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the verified snapshot counts: taken_at, but never later than received_at; NULL where it is not verified.',
    spool_id     String COMMENT 'Spool volume that acknowledged that report.',
    spool_seq    UInt64 COMMENT 'Sequence number of that report in the spool.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    received_at,
    toString(customer_id) AS customer_id,
    host_id,
    guest_id,
    vmid,
    datastore,
    taken_at,
    size_bytes,
    verified,
    succeeded_at,
    toString(spool_id) AS spool_id,
    spool_seq
FROM pbs_snapshot_items FINAL
COMMENT 'One row a snapshot of a guest in a Proxmox Backup Server, however many reports repeat it. Retention: clickhouse.retention.items.';

CREATE TABLE IF NOT EXISTS audit_items
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock at the first report that had the entry.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the host belonged to then.',
    host_id     String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    at          DateTime64(3, 'UTC') COMMENT 'When it was done. Agent clock, clamped to 1900-2262.' CODEC(Delta, ZSTD(1)),
    actor       String COMMENT 'Who did it; empty where absent.' CODEC(ZSTD(1)),
    action      LowCardinality(String) COMMENT 'What was done, as guest.stop; empty where absent.',
    detail      String COMMENT 'To what, as vmid=102; empty where absent.' CODEC(ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged that report.',
    spool_seq   UInt64 COMMENT 'Sequence number of that report in the spool.' CODEC(Delta, ZSTD(1)),
    version     UInt128 MATERIALIZED bitNot({{version}}) COMMENT 'Greatest in the row of the first report that had the entry.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (host_id, at, actor, action, detail)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'One row an entry of a host''s own audit log, however many reports repeat it; several rows of one may be there, of which the greatest version counts. The view agent_audit reads it. Retention: clickhouse.retention.items.';

CREATE OR REPLACE VIEW agent_audit
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock at the first report that had the entry.',
    customer_id String COMMENT 'Customer that the host belonged to then.',
    host_id     String COMMENT 'Host that reported.',
    at          DateTime64(3, 'UTC') COMMENT 'When it was done. Agent clock, clamped to 1900-2262.',
    actor       String COMMENT 'Who did it; empty where absent.',
    action      String COMMENT 'What was done, as guest.stop; empty where absent.',
    detail      String COMMENT 'To what, as vmid=102; empty where absent.',
    spool_id    String COMMENT 'Spool volume that acknowledged that report.',
    spool_seq   UInt64 COMMENT 'Sequence number of that report in the spool.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    received_at,
    toString(customer_id) AS customer_id,
    host_id,
    at,
    actor,
    toString(action) AS action,
    detail,
    toString(spool_id) AS spool_id,
    spool_seq
FROM audit_items FINAL
COMMENT 'One row an entry of a host''s own audit log, however many reports repeat it. Retention: clickhouse.retention.items.';

CREATE TABLE IF NOT EXISTS successes_ahead
(
    host_id     String COMMENT 'Host that the guest ran on.' CODEC(ZSTD(1)),
    vmid        UInt32 COMMENT 'Proxmox id of the guest.' CODEC(T64, ZSTD(1)),
    deadline    LowCardinality(String) COMMENT 'What succeeded: backup, restore_test or pbs_verify.',
    item        String COMMENT 'Which of them: target, datastore and times, as the hub writes them.' CODEC(ZSTD(1)),
    own_at      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'The time that the agent gives for it.',
    received_at SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'Hub clock at the first report that had it as a success: the time for which it counts.'
)
ENGINE = AggregatingMergeTree
ORDER BY (host_id, vmid, deadline, item)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Successes that the hub heard of before the time that they give: the clock of the agent is ahead. They are remembered so that they do not look newer each time they are repeated. Kept for ever.';

CREATE TABLE IF NOT EXISTS guest_deadlines
(
    host_id         String COMMENT 'Host that the guest runs on.' CODEC(ZSTD(1)),
    vmid            UInt32 COMMENT 'Proxmox id of the guest.',
    first_seen_at   SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'received_at of the first report that listed the guest; 2262 where none did.',
    backup_at       SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'Newest successful backup, by the time for which it counts; 1970 where there is none.',
    restore_test_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'Newest successful restore test, by the time for which it counts; 1970 where there is none.',
    pbs_verify_at   SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'Newest verified snapshot, by the time for which it counts; 1970 where there is none.'
)
ENGINE = AggregatingMergeTree
ORDER BY (host_id, vmid)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'What the deadlines of each guest are judged by; several rows of one may be there: read it with FINAL. The time for which a success counts is the agent''s, but never later than the hub''s when it first heard of it. Kept for ever.';

-- Of guests that were reported before, no success is known yet: they are first seen
-- when they are next reported, with what their host lists then.

CREATE OR REPLACE VIEW backups_latest
(
    guest_id            String COMMENT '<host_id>/<vmid>.',
    host_id             String COMMENT 'Host that the guest ran on.',
    customer_id         String COMMENT 'Customer that the host belongs to now.',
    vmid                UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    target              String COMMENT 'Storage target of the newest backup.',
    status              String COMMENT 'Its status; ok is a success.',
    error               String COMMENT 'What went wrong with it; empty where absent.',
    started_at          DateTime64(3, 'UTC') COMMENT 'When it began. Agent clock.',
    finished_at         Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ended; NULL while it runs. Agent clock.',
    size_bytes          UInt64 COMMENT 'Its size in bytes; 0 where absent.',
    received_at         DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that its row is of.',
    last_success_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the newest success counts; NULL where there is none.',
    last_success_target String COMMENT 'Storage target of that success; empty where there is none.',
    last_success_bytes  UInt64 COMMENT 'Size of that success in bytes; 0 where there is none.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    concat(i.host_id, '/', toString(i.vmid)) AS guest_id,
    i.host_id AS host_id,
    f.entry.1 AS customer_id,
    i.vmid AS vmid,
    i.newest.target AS target,
    i.newest.status AS status,
    i.newest.error AS error,
    i.newest.started_at AS started_at,
    i.newest.finished_at AS finished_at,
    i.newest.size_bytes AS size_bytes,
    i.newest.received_at AS received_at,
    i.success AS last_success_at,
    i.good.1 AS last_success_target,
    i.good.2 AS last_success_bytes
FROM
(
    SELECT host_id, vmid,
        argMax(CAST((target, toString(status), error, started_at, finished_at, size_bytes, received_at), 'Tuple(target String, status String, error String, started_at DateTime64(3, \'UTC\'), finished_at Nullable(DateTime64(3, \'UTC\')), size_bytes UInt64, received_at DateTime64(3, \'UTC\'))'), (least(started_at, received_at), started_at)) AS newest,
        max(succeeded_at) AS success,
        argMaxIf((target, size_bytes), assumeNotNull(succeeded_at), isNotNull(succeeded_at)) AS good
    FROM backup_items FINAL GROUP BY host_id, vmid
) AS i
INNER JOIN
(
    SELECT host_id, argMax((toString(customer_id), toString(lifecycle), removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.3 = 0 AND entry.2 != 'retired'
) AS f ON f.host_id = i.host_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a guest of an enrolled host that is not retired, of which a backup is known: the newest one, whatever came of it, and the newest success. A guest that never had one is in guests alone.';

CREATE OR REPLACE VIEW restore_tests_latest
(
    guest_id                 String COMMENT '<host_id>/<vmid>.',
    host_id                  String COMMENT 'Host that the guest ran on.',
    customer_id              String COMMENT 'Customer that the host belongs to now.',
    vmid                     UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    status                   String COMMENT 'Status of the newest restore test; ok is a success.',
    tested_at                DateTime64(3, 'UTC') COMMENT 'When it was done. Agent clock.',
    backup_time              DateTime64(3, 'UTC') COMMENT 'Time of the backup that was restored; 1900 where absent. Agent clock.',
    duration_seconds         Float64 COMMENT 'How long it took; 0 where absent.',
    received_at              DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that its row is of.',
    last_success_at          Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the newest success counts; NULL where there is none.',
    last_success_backup_time Nullable(DateTime64(3, 'UTC')) COMMENT 'Time of the backup that was restored then; NULL where there is none. Agent clock.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    concat(i.host_id, '/', toString(i.vmid)) AS guest_id,
    i.host_id AS host_id,
    f.entry.1 AS customer_id,
    i.vmid AS vmid,
    i.newest.status AS status,
    i.newest.tested_at AS tested_at,
    i.newest.backup_time AS backup_time,
    i.newest.duration_seconds AS duration_seconds,
    i.newest.received_at AS received_at,
    i.success AS last_success_at,
    if(isNull(i.success), NULL, i.good) AS last_success_backup_time
FROM
(
    SELECT host_id, vmid,
        argMax(CAST((toString(status), tested_at, backup_time, duration_seconds, received_at), 'Tuple(status String, tested_at DateTime64(3, \'UTC\'), backup_time DateTime64(3, \'UTC\'), duration_seconds Float64, received_at DateTime64(3, \'UTC\'))'), (least(tested_at, received_at), tested_at)) AS newest,
        max(succeeded_at) AS success,
        argMaxIf(backup_time, assumeNotNull(succeeded_at), isNotNull(succeeded_at)) AS good
    FROM restore_test_items FINAL GROUP BY host_id, vmid
) AS i
INNER JOIN
(
    SELECT host_id, argMax((toString(customer_id), toString(lifecycle), removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.3 = 0 AND entry.2 != 'retired'
) AS f ON f.host_id = i.host_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a guest of an enrolled host that is not retired, of which a restore test is known: the newest one, whatever came of it, and the newest success. A guest that was never tested is in guests alone.';

CREATE OR REPLACE VIEW pbs_snapshots_latest
(
    guest_id                String COMMENT '<host_id>/<vmid>.',
    host_id                 String COMMENT 'Host that the guest ran on.',
    customer_id             String COMMENT 'Customer that the host belongs to now.',
    vmid                    UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    datastore               String COMMENT 'Datastore of the newest snapshot.',
    taken_at                DateTime64(3, 'UTC') COMMENT 'When it was taken. Agent clock.',
    verified                Bool COMMENT 'Whether the server has read it through and found it whole.',
    size_bytes              UInt64 COMMENT 'Its size in bytes; 0 where absent.',
    received_at             DateTime64(3, 'UTC') COMMENT 'Hub clock at the report that its row is of.',
    last_verified_at        Nullable(DateTime64(3, 'UTC')) COMMENT 'The time for which the newest verified snapshot counts; NULL where there is none.',
    last_verified_datastore String COMMENT 'Its datastore; empty where there is none.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    concat(i.host_id, '/', toString(i.vmid)) AS guest_id,
    i.host_id AS host_id,
    f.entry.1 AS customer_id,
    i.vmid AS vmid,
    i.newest.datastore AS datastore,
    i.newest.taken_at AS taken_at,
    i.newest.verified AS verified,
    i.newest.size_bytes AS size_bytes,
    i.newest.received_at AS received_at,
    i.success AS last_verified_at,
    i.good AS last_verified_datastore
FROM
(
    SELECT host_id, vmid,
        argMax(CAST((datastore, taken_at, verified, size_bytes, received_at), 'Tuple(datastore String, taken_at DateTime64(3, \'UTC\'), verified Bool, size_bytes UInt64, received_at DateTime64(3, \'UTC\'))'), (least(taken_at, received_at), taken_at)) AS newest,
        max(succeeded_at) AS success,
        argMaxIf(datastore, assumeNotNull(succeeded_at), isNotNull(succeeded_at)) AS good
    FROM pbs_snapshot_items FINAL GROUP BY host_id, vmid
) AS i
INNER JOIN
(
    SELECT host_id, argMax((toString(customer_id), toString(lifecycle), removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.3 = 0 AND entry.2 != 'retired'
) AS f ON f.host_id = i.host_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a guest of an enrolled host that is not retired, of which a snapshot in a Proxmox Backup Server is known: the newest one, and the newest verified one. A guest without any is in guests alone.';
