-- The latest state of each host and guest: idempotent aggregates only (max,
-- argMax), so that feeding a range again after a crash changes nothing.

CREATE TABLE IF NOT EXISTS host_last
(
    host_id        String COMMENT 'Host.',
    last_report_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'received_at of the newest report.',
    position       AggregateFunction(argMax, Tuple(String, UInt64), Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'State of (spool_id, spool_seq) of the newest report; read with argMaxMerge.',
    latest         AggregateFunction(argMax, Tuple(reported_at DateTime64(3, 'UTC'), customer_id String, agent_version String, cpu_percent Nullable(Float64), mem_percent Nullable(Float64), disk_percent Nullable(Float64), guest_total UInt32, guest_running UInt32, cloudflared_status String), Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'State of the newest report''s values; read with argMaxMerge, or read the view hosts.'
)
ENGINE = AggregatingMergeTree
ORDER BY host_id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Latest state of each host that ever reported, as aggregate states; the view hosts reads it.';

CREATE MATERIALIZED VIEW IF NOT EXISTS host_last_feed TO host_last
(
    host_id        String COMMENT 'As in host_last.',
    last_report_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'As in host_last.',
    position       AggregateFunction(argMax, Tuple(String, UInt64), Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'As in host_last.',
    latest         AggregateFunction(argMax, Tuple(reported_at DateTime64(3, 'UTC'), customer_id String, agent_version String, cpu_percent Nullable(Float64), mem_percent Nullable(Float64), disk_percent Nullable(Float64), guest_total UInt32, guest_running UInt32, cloudflared_status String), Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'As in host_last.'
)
AS SELECT
    host_id,
    max(received_at) AS last_report_at,
    argMaxState((toString(spool_id), spool_seq), (received_at, spool_seq)) AS position,
    argMaxState(CAST((reported_at, toString(customer_id), toString(agent_version), cpu_percent, mem_percent, disk_percent, guest_total, guest_running, toString(cloudflared_status)), 'Tuple(reported_at DateTime64(3, \'UTC\'), customer_id String, agent_version String, cpu_percent Nullable(Float64), mem_percent Nullable(Float64), disk_percent Nullable(Float64), guest_total UInt32, guest_running UInt32, cloudflared_status String)'), (received_at, spool_seq)) AS latest
FROM host_reports
GROUP BY host_id
COMMENT 'Feeds host_last from host_reports; not for reading.';

CREATE TABLE IF NOT EXISTS guest_last
(
    host_id      String COMMENT 'Host that the guest ran on.',
    vmid         UInt32 COMMENT 'Proxmox id of the guest.',
    last_seen_at SimpleAggregateFunction(max, Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT '(received_at, spool_seq) of the newest report that listed the guest.',
    latest       AggregateFunction(argMax, Tuple(name String, status String, controller_version String), Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'State of the guest''s newest values; read with argMaxMerge, or read the view guests.'
)
ENGINE = AggregatingMergeTree
ORDER BY (host_id, vmid)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Latest state of each guest ever seen, as aggregate states; the view guests reads it.';

CREATE MATERIALIZED VIEW IF NOT EXISTS guest_last_feed TO guest_last
(
    host_id      String COMMENT 'As in guest_last.',
    vmid         UInt32 COMMENT 'As in guest_last.',
    last_seen_at SimpleAggregateFunction(max, Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'As in guest_last.',
    latest       AggregateFunction(argMax, Tuple(name String, status String, controller_version String), Tuple(DateTime64(3, 'UTC'), UInt64)) COMMENT 'As in guest_last.'
)
AS SELECT
    host_id,
    vmid,
    max((received_at, spool_seq)) AS last_seen_at,
    argMaxState(CAST((name, toString(status), toString(controller_version)), 'Tuple(name String, status String, controller_version String)'), (received_at, spool_seq)) AS latest
FROM guest_reports
GROUP BY host_id, vmid
COMMENT 'Feeds guest_last from guest_reports; not for reading.';
