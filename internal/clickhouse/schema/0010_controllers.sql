-- What controllers in guests reported, and their latest state: the same form as that
-- of hosts in 0001 and 0007.

CREATE TABLE IF NOT EXISTS controller_reports
(
    received_at        DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted; never goes back. Liveness is judged by this time alone.' CODEC(Delta, ZSTD(1)),
    reported_at        DateTime64(3, 'UTC') COMMENT 'Controller''s clock when the report was made, clamped to 1900-2262; may be wrong, never used to judge liveness.' CODEC(Delta, ZSTD(1)),
    customer_id        LowCardinality(String) COMMENT 'Customer that the report is of.',
    host_id            String COMMENT 'Host of the guest; empty where the controller does not say in which guest it runs.' CODEC(ZSTD(1)),
    guest_id           String COMMENT '<host_id>/<vmid> of the guest that the controller runs in; empty where it does not say.' CODEC(ZSTD(1)),
    key_id             LowCardinality(String) COMMENT 'Owner and id of the key that authorised the report, as customer/acme/k1 or fleet/k1; never the key.',
    controller_version LowCardinality(String) COMMENT 'Version of the controller.',
    status             LowCardinality(String) COMMENT 'Status as the controller itself says, as healthy; empty where absent.',
    uptime_seconds     Nullable(UInt64) COMMENT 'Seconds since the controller''s guest started.' CODEC(Delta, ZSTD(1)),
    cpu_percent        Nullable(Float64) COMMENT 'Processor use of the guest, 0-100.' CODEC(ZSTD(1)),
    memory_percent     Nullable(Float64) COMMENT 'Memory in use of the guest, 0-100.' CODEC(ZSTD(1)),
    disk_percent       Nullable(Float64) COMMENT 'Disk in use of the guest, 0-100.' CODEC(ZSTD(1)),
    last_backup_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'When the newest backup succeeded, by the controller''s clock, clamped to 1900-2262; NULL where it does not say.' CODEC(ZSTD(1)),
    last_backup_status LowCardinality(String) COMMENT 'Status of the newest backup as sent, as ok; empty where absent.',
    app_total          UInt32 COMMENT 'Number of rows of this report in controller_apps.' CODEC(T64, ZSTD(1)),
    rejected_total     UInt32 COMMENT 'Number of rows of this report in rejected_items: parts that were left out, at most 1000; the last then tells how many more.' CODEC(T64, ZSTD(1)),
    body_sha256        FixedString(32) COMMENT 'SHA-256 of the body as sent (after decompression); hex(body_sha256) prints it.',
    body_bytes         UInt32 COMMENT 'Length of the body in bytes, after decompression.' CODEC(T64, ZSTD(1)),
    spool_id           LowCardinality(String) COMMENT 'Spool volume that acknowledged the report; with spool_seq the identity of the row.',
    spool_seq          UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (guest_id, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row an accepted report of a controller. Retention: clickhouse.retention.reports.';

CREATE TABLE IF NOT EXISTS controller_report_bodies
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the report is of.',
    host_id     String COMMENT 'Host of the guest; empty where the controller does not say in which guest it runs.' CODEC(ZSTD(1)),
    guest_id    String COMMENT 'Guest that the controller runs in; empty where it does not say.' CODEC(ZSTD(1)),
    body        String COMMENT 'The report as sent, after decompression: JSON with every field, known or not.' CODEC(ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged the report; joins controller_reports together with spool_seq.',
    spool_seq   UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (guest_id, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row an accepted report of a controller: its body as sent. Retention: clickhouse.retention.raw.';

CREATE TABLE IF NOT EXISTS controller_apps
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the report is of.',
    host_id     String COMMENT 'Host of the guest; empty where the controller does not say in which guest it runs.' CODEC(ZSTD(1)),
    guest_id    String COMMENT 'Guest that the controller runs in; empty where it does not say.' CODEC(ZSTD(1)),
    name        String COMMENT 'Name of the app, unique within a report.' CODEC(ZSTD(1)),
    status      LowCardinality(String) COMMENT 'Status as reported, as running or stopped; empty where absent.',
    version     LowCardinality(String) COMMENT 'Version as reported; empty where absent.',
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged the report.',
    spool_seq   UInt64 COMMENT 'Sequence number of the report in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (guest_id, received_at, name)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row an app and report of a controller. Retention: clickhouse.retention.guests.';

CREATE TABLE IF NOT EXISTS controller_last
(
    guest_id           String COMMENT 'Guest that the controller runs in.' CODEC(ZSTD(1)),
    host_id            String COMMENT 'Host of that guest.' CODEC(ZSTD(1)),
    customer_id        LowCardinality(String) COMMENT 'Customer that the newest report is of.',
    last_report_at     DateTime64(3, 'UTC') COMMENT 'received_at of the newest report.',
    reported_at        DateTime64(3, 'UTC') COMMENT 'Controller''s clock of that report.',
    controller_version LowCardinality(String) COMMENT 'Of that report.',
    status             LowCardinality(String) COMMENT 'Of that report; empty where absent.',
    cpu_percent        Nullable(Float64) COMMENT 'Of that report, 0-100.',
    memory_percent     Nullable(Float64) COMMENT 'Of that report, 0-100.',
    disk_percent       Nullable(Float64) COMMENT 'Of that report, 0-100.',
    uptime_seconds     Nullable(UInt64) COMMENT 'Of that report.',
    last_backup_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'Of that report: when the newest backup succeeded, by the controller''s clock; NULL where it does not say.',
    spool_id           LowCardinality(String) COMMENT 'Spool volume that acknowledged that report.',
    spool_seq          UInt64 COMMENT 'Sequence number of that report in the spool.',
    version            UInt128 COMMENT 'received_at in milliseconds * 2^64 + spool_seq: of several rows of a guest the one with the greatest counts.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY guest_id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Latest state of the controller of each guest whose controller ever reported; several rows of one may be there, of which the greatest version counts. The view controllers reads it.';

CREATE MATERIALIZED VIEW IF NOT EXISTS controller_last_feed TO controller_last
(
    guest_id           String COMMENT 'As in controller_last.',
    host_id            String COMMENT 'As in controller_last.',
    customer_id        LowCardinality(String) COMMENT 'As in controller_last.',
    last_report_at     DateTime64(3, 'UTC') COMMENT 'As in controller_last.',
    reported_at        DateTime64(3, 'UTC') COMMENT 'As in controller_last.',
    controller_version LowCardinality(String) COMMENT 'As in controller_last.',
    status             LowCardinality(String) COMMENT 'As in controller_last.',
    cpu_percent        Nullable(Float64) COMMENT 'As in controller_last.',
    memory_percent     Nullable(Float64) COMMENT 'As in controller_last.',
    disk_percent       Nullable(Float64) COMMENT 'As in controller_last.',
    uptime_seconds     Nullable(UInt64) COMMENT 'As in controller_last.',
    last_backup_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'As in controller_last.',
    spool_id           LowCardinality(String) COMMENT 'As in controller_last.',
    spool_seq          UInt64 COMMENT 'As in controller_last.',
    version            UInt128 COMMENT 'As in controller_last.'
)
AS SELECT
    {{controller_last}}
FROM controller_reports
WHERE guest_id != ''
COMMENT 'Feeds controller_last from controller_reports; not for reading.';

CREATE MATERIALIZED VIEW IF NOT EXISTS controller_key_last_feed TO key_last
(
    host_id      String COMMENT 'As in key_last.',
    key_id       LowCardinality(String) COMMENT 'As in key_last.',
    last_used_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'As in key_last.'
)
AS SELECT
    host_id,
    key_id,
    {{key_last_values}}
FROM controller_reports
GROUP BY host_id, key_id
COMMENT 'Feeds key_last from controller_reports; not for reading.';

ALTER TABLE key_last
    COMMENT COLUMN host_id 'Host that reported, or on which the guest runs whose controller did; empty where it does not say.',
    COMMENT COLUMN key_id 'Id of the key that authorised the reports: of the host (k1), or customer/acme/k1 or fleet/k1; never the key.';

CREATE OR REPLACE VIEW fleet_keys
(
    owner        String COMMENT 'What the key is bound to: host/<host_id>, customer/<customer_id> or fleet.',
    customer_id  String COMMENT 'Customer that owns the key, or the host that does; empty for a global key.',
    host_id      String COMMENT 'Host that owns the key; empty for a customer''s or a global key.',
    key_id       String COMMENT 'Id of the key, unique within its owner; never the key.',
    not_after    Nullable(DateTime64(3, 'UTC')) COMMENT 'Last instant at which the key may be used; NULL where it does not expire.',
    revision     String COMMENT 'Commit that last changed the key''s entry in the register.',
    applied_at   DateTime64(3, 'UTC') COMMENT 'When the hub put that commit in force.',
    last_used_at Nullable(DateTime64(3, 'UTC')) COMMENT 'received_at of the newest report under the key, of a host or a controller; NULL where there is none. Uses of an earlier key of the same owner and id, that was removed, do not count.'
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
    {{all_key_uses}}
) AS u ON u.owner = k.owner AND u.key_id = k.key_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a key in the register of a host that is not retired, of a customer or of the fleet: until when it holds and when it was last used. For operators only.';

CREATE OR REPLACE VIEW controllers
(
    guest_id           String COMMENT '<host_id>/<vmid> of the guest that the controller runs in.',
    host_id            String COMMENT 'Host of that guest.',
    customer_id        String COMMENT 'Customer that the host belongs to now.',
    state              String COMMENT 'What the switch last decided: ok, stale or down. A controller that reported before the switch first looked at it is ok.',
    state_since        Nullable(DateTime64(3, 'UTC')) COMMENT 'Instant at which the state began; NULL where the switch has not looked yet.',
    last_report_at     DateTime64(3, 'UTC') COMMENT 'received_at of the newest report.',
    controller_version String COMMENT 'Of the newest report.',
    status             String COMMENT 'What the controller itself says in the newest report, as healthy; empty where absent.',
    cpu_percent        Nullable(Float64) COMMENT 'Of the newest report, 0-100.',
    memory_percent     Nullable(Float64) COMMENT 'Of the newest report, 0-100.',
    disk_percent       Nullable(Float64) COMMENT 'Of the newest report, 0-100.',
    uptime_seconds     Nullable(UInt64) COMMENT 'Of the newest report.',
    last_backup_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'Of the newest report: when the newest backup succeeded, by the controller''s clock; NULL where it does not say.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    l.guest_id AS guest_id,
    l.latest.host_id AS host_id,
    f.entry.1 AS customer_id,
    if(s.state = '', 'ok', s.state) AS state,
    if(s.host_id = '', NULL, s.since) AS state_since,
    l.last_report_at AS last_report_at,
    l.latest.controller_version AS controller_version,
    l.latest.status AS status,
    l.latest.cpu_percent AS cpu_percent,
    l.latest.memory_percent AS memory_percent,
    l.latest.disk_percent AS disk_percent,
    l.latest.uptime_seconds AS uptime_seconds,
    l.latest.last_backup_at AS last_backup_at
FROM
(
    SELECT guest_id, max(last_report_at) AS last_report_at,
        argMax(CAST((host_id, toString(controller_version), toString(status), cpu_percent, memory_percent, disk_percent, uptime_seconds, last_backup_at), 'Tuple(host_id String, controller_version String, status String, cpu_percent Nullable(Float64), memory_percent Nullable(Float64), disk_percent Nullable(Float64), uptime_seconds Nullable(UInt64), last_backup_at Nullable(DateTime64(3, \'UTC\')))'), version) AS latest
    FROM controller_last GROUP BY guest_id
) AS l
INNER JOIN
(
    SELECT host_id, argMax((toString(customer_id), toString(lifecycle), removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.3 = 0 AND entry.2 != 'retired'
) AS f ON f.host_id = l.latest.host_id
LEFT JOIN
(
    SELECT host_id, argMax(toString(state), (decided_at, spool_seq)) AS state, argMax(since, (decided_at, spool_seq)) AS since
    FROM switch_state WHERE position(host_id, '/') > 0 GROUP BY host_id
) AS s ON s.host_id = l.guest_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a guest whose controller ever reported, on an enrolled host that is not retired: what the switch says, and its newest metrics.';

CREATE OR REPLACE VIEW apps
(
    guest_id       String COMMENT '<host_id>/<vmid> of the guest that the app runs in.',
    host_id        String COMMENT 'Host of that guest.',
    customer_id    String COMMENT 'Customer that the host belongs to now.',
    name           String COMMENT 'Name of the app.',
    status         String COMMENT 'Newest status, as running or stopped; empty where absent.',
    version        String COMMENT 'Newest version; empty where absent.',
    last_report_at DateTime64(3, 'UTC') COMMENT 'received_at of the report that says so: the controller''s newest.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    a.guest_id AS guest_id,
    a.host_id AS host_id,
    f.entry.1 AS customer_id,
    a.name AS name,
    toString(a.status) AS status,
    toString(a.version) AS version,
    a.received_at AS last_report_at
FROM
(
    SELECT * FROM controller_apps
    WHERE (guest_id, received_at, spool_seq) IN
        (SELECT guest_id, max(last_report_at), argMax(spool_seq, controller_last.version) FROM controller_last GROUP BY guest_id)
) AS a
INNER JOIN
(
    SELECT host_id, argMax((toString(customer_id), toString(lifecycle), removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.3 = 0 AND entry.2 != 'retired'
) AS f ON f.host_id = a.host_id
SETTINGS join_use_nulls = 0
COMMENT 'One row an app that the newest report of a guest''s controller lists, on an enrolled host that is not retired.';

ALTER TABLE events
    COMMENT COLUMN type 'Kind of event, as host_stale, host_down, host_recovered; or one that a controller sent, as backup_failed.',
    COMMENT COLUMN at 'Instant at which the condition first held; of a controller''s event the time that it gives, else that of its receipt.',
    COMMENT COLUMN detected_at 'Slot time of the evaluation that found it; of a controller''s event the time of its receipt.',
    COMMENT COLUMN reason 'Name of the rule that decided, with the figures that led to it; of a controller''s event its message, cut to 2000 characters.';

ALTER TABLE rejected_items COMMENT COLUMN host_id 'Host that reported, or on which the guest runs whose controller did.';

ALTER TABLE rejected_reports
    COMMENT COLUMN host_id 'Host that sent the record, or guest whose controller did; empty for a record of the hub itself and of a controller that does not say in which guest it runs.',
    COMMENT COLUMN kind 'Kind of the record: 1 host report, 2 decision of the switch, 3 notice of the fleet, 4 blind time of the hub, 5 report of a controller, 6 event of a controller.';
