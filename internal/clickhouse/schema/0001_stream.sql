-- The stream: what agents reported, as the spool handed it over.
-- Every table here is fed by the shipper alone, one block per insert, and keeps
-- the log of deduplication tokens that makes a retry harmless.

CREATE TABLE IF NOT EXISTS host_reports
(
    received_at        DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted; never goes back. Liveness is judged by this time alone.' CODEC(Delta, ZSTD(1)),
    reported_at        DateTime64(3, 'UTC') COMMENT 'Agent clock when the report was made, clamped to 1900-2262; may be wrong, never used to judge liveness.' CODEC(Delta, ZSTD(1)),
    customer_id        LowCardinality(String) COMMENT 'Customer that the host belonged to when the report was accepted.',
    host_id            String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    key_id             LowCardinality(String) COMMENT 'Id of the key that authorised the report: of the host (k1), or fleet/k1 for a global one; never the key.',
    agent_version      LowCardinality(String) COMMENT 'Version of the agent.',
    hostname           String COMMENT 'Host name as the host itself says; empty where absent.' CODEC(ZSTD(1)),
    pve_version        LowCardinality(String) COMMENT 'Proxmox VE version; empty where absent.',
    kernel             LowCardinality(String) COMMENT 'Kernel release; empty where absent.',
    boot_id            String COMMENT 'Random id of the current boot; a change is a reboot. Empty where absent.' CODEC(ZSTD(1)),
    uptime_seconds     Nullable(UInt64) COMMENT 'Seconds since boot.' CODEC(Delta, ZSTD(1)),
    cpu_count          Nullable(UInt64) COMMENT 'Number of logical processors.' CODEC(T64, ZSTD(1)),
    cpu_percent        Nullable(Float64) COMMENT 'Processor use of the whole machine, 0-100.' CODEC(ZSTD(1)),
    load_1             Nullable(Float64) COMMENT 'Load average over 1 minute.' CODEC(ZSTD(1)),
    load_5             Nullable(Float64) COMMENT 'Load average over 5 minutes.' CODEC(ZSTD(1)),
    load_15            Nullable(Float64) COMMENT 'Load average over 15 minutes.' CODEC(ZSTD(1)),
    memory_total_bytes Nullable(UInt64) COMMENT 'Installed memory in bytes.' CODEC(T64, ZSTD(1)),
    memory_used_bytes  Nullable(UInt64) COMMENT 'Memory in use in bytes.' CODEC(T64, ZSTD(1)),
    mem_percent        Nullable(Float64) COMMENT 'memory_used_bytes / memory_total_bytes * 100; NULL where the total is 0 or absent.' CODEC(ZSTD(1)),
    disk_total_bytes   Nullable(UInt64) COMMENT 'Size of the root storage in bytes.' CODEC(T64, ZSTD(1)),
    disk_used_bytes    Nullable(UInt64) COMMENT 'Used part of the root storage in bytes.' CODEC(T64, ZSTD(1)),
    disk_percent       Nullable(Float64) COMMENT 'disk_used_bytes / disk_total_bytes * 100; NULL where the total is 0 or absent.' CODEC(ZSTD(1)),
    guest_total        UInt32 COMMENT 'Number of accepted guests in the report.' CODEC(T64, ZSTD(1)),
    guest_running      UInt32 COMMENT 'Number of accepted guests whose status is running.' CODEC(T64, ZSTD(1)),
    cloudflared_status LowCardinality(String) COMMENT 'Status of the tunnel; empty where absent.',
    maintenance_until  Nullable(DateTime64(3, 'UTC')) COMMENT 'End of the maintenance that the agent announced, at most 24 h after received_at; NULL where none.' CODEC(ZSTD(1)),
    maintenance_reason String COMMENT 'Reason that the agent gave for its maintenance; empty where none.' CODEC(ZSTD(1)),
    rejected_total     UInt32 COMMENT 'Number of rows of this report in rejected_items: parts that were left out, at most 1000; the last then tells how many more.' CODEC(T64, ZSTD(1)),
    body_sha256        FixedString(32) COMMENT 'SHA-256 of the body as sent (after decompression); hex(body_sha256) prints it.',
    body_bytes         UInt32 COMMENT 'Length of the body in bytes, after decompression.' CODEC(T64, ZSTD(1)),
    spool_id           LowCardinality(String) COMMENT 'Spool volume that acknowledged the report; with spool_seq the identity of the row.',
    spool_seq          UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (host_id, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row an accepted host report: times, ids, metrics. Retention: clickhouse.retention.reports.';

CREATE TABLE IF NOT EXISTS host_report_bodies
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the host belonged to when the report was accepted.',
    host_id     String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    body        String COMMENT 'The report as sent, after decompression: JSON with every field, known or not.' CODEC(ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged the report; joins host_reports together with spool_seq.',
    spool_seq   UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (host_id, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row an accepted host report: its body as sent. Retention: clickhouse.retention.raw.';

CREATE TABLE IF NOT EXISTS guest_reports
(
    received_at        DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id        LowCardinality(String) COMMENT 'Customer that the host belonged to when the report was accepted.',
    host_id            String COMMENT 'Host that the guest ran on.' CODEC(ZSTD(1)),
    guest_id           String COMMENT '<host_id>/<vmid>.' CODEC(ZSTD(1)),
    vmid               UInt32 COMMENT 'Proxmox id of the guest, unique on its host.' CODEC(T64, ZSTD(1)),
    name               String COMMENT 'Name of the guest; empty where absent.' CODEC(ZSTD(1)),
    status             LowCardinality(String) COMMENT 'Status as reported, as running, stopped, paused; empty where absent.',
    controller_version LowCardinality(String) COMMENT 'Version of the controller in the guest; empty where there is none.',
    spec               String COMMENT 'JSON object as sent: the real shape of the guest (cores, memory, …); empty where absent.' CODEC(ZSTD(1)),
    spool_id           LowCardinality(String) COMMENT 'Spool volume that acknowledged the report.',
    spool_seq          UInt64 COMMENT 'Sequence number of the report in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (host_id, vmid, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row a guest and report. Retention: clickhouse.retention.guests.';

CREATE TABLE IF NOT EXISTS rejected_items
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock when the report was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the host belonged to when the report was accepted.',
    host_id     String COMMENT 'Host that reported.' CODEC(ZSTD(1)),
    section     LowCardinality(String) COMMENT 'Member of the report that the part stood in, as guests or host.',
    position    Int32 COMMENT 'Index in the list, from 0; -1 where it is not an item of a list: the section itself, or a member of host.' CODEC(T64, ZSTD(1)),
    reason      String COMMENT 'Why it was left out.' CODEC(ZSTD(1)),
    item        String COMMENT 'The part as sent, cut to 1 KiB.' CODEC(ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged the report.',
    spool_seq   UInt64 COMMENT 'Sequence number of the report in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (host_id, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, ttl_only_drop_parts = 1
COMMENT 'One row a part of an accepted report that was left out of the other tables, and why. Retention: clickhouse.retention.reports.';

CREATE TABLE IF NOT EXISTS rejected_reports
(
    received_at DateTime64(3, 'UTC') COMMENT 'Hub clock when the record was accepted.' CODEC(Delta, ZSTD(1)),
    customer_id LowCardinality(String) COMMENT 'Customer that the host belonged to then.',
    host_id     String COMMENT 'Host that sent the record; empty for a record of the hub itself.' CODEC(ZSTD(1)),
    kind        UInt8 COMMENT 'Kind of the record: 1 host report, 2 decision of the switch.',
    reason      String COMMENT 'Why the record could not become rows.' CODEC(ZSTD(1)),
    body        String COMMENT 'The record as the spool held it.' CODEC(ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that acknowledged the record.',
    spool_seq   UInt64 COMMENT 'Sequence number in the spool.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (host_id, received_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Acknowledged records that could not become rows, kept whole. Empty unless something is wrong; for operators only.';
