-- The git register as a dimension: append only, one row a change; the newest
-- row of a name (by generation) is what holds. The hub reconciles at start.

CREATE TABLE IF NOT EXISTS fleet_hosts
(
    generation         UInt64 COMMENT 'Grows with each change that is written; the newest row of a host has the greatest.',
    revision           String COMMENT 'Commit of the fleet repository.' CODEC(ZSTD(1)),
    applied_at         DateTime64(3, 'UTC') COMMENT 'When the hub put that commit in force.',
    host_id            String COMMENT 'Host.',
    customer_id        LowCardinality(String) COMMENT 'Customer that it belongs to.',
    display_name       String COMMENT 'Name for people.' CODEC(ZSTD(1)),
    site               LowCardinality(String) COMMENT 'Label site; empty where absent.',
    labels             Map(String, String) COMMENT 'All labels.' CODEC(ZSTD(1)),
    lifecycle          LowCardinality(String) COMMENT 'active, paused or retired.',
    stale_after_seconds Float64 COMMENT 'Silence after which the host is stale, as it holds for this host.',
    down_after_seconds Float64 COMMENT 'Silence after which the host is down, as it holds for this host.',
    desired            String COMMENT 'Inert desired spec as JSON; never sent to an agent.' CODEC(ZSTD(1)),
    dr_record          String COMMENT 'Inert disaster-recovery record as JSON.' CODEC(ZSTD(1)),
    removed            UInt8 COMMENT '1 where the host is no longer in the repository.'
)
ENGINE = MergeTree
ORDER BY (host_id, generation)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Hosts of the fleet repository, one row a change; the newest generation of a host_id holds.';

CREATE TABLE IF NOT EXISTS fleet_customers
(
    generation   UInt64 COMMENT 'Grows with each change that is written; the newest row of a customer has the greatest.',
    revision     String COMMENT 'Commit of the fleet repository.' CODEC(ZSTD(1)),
    applied_at   DateTime64(3, 'UTC') COMMENT 'When the hub put that commit in force.',
    customer_id  String COMMENT 'Customer.',
    display_name String COMMENT 'Name for people.' CODEC(ZSTD(1)),
    blocked      UInt8 COMMENT '1 while the customer''s status is blocked.',
    removed      UInt8 COMMENT '1 where the customer is no longer in the repository.'
)
ENGINE = MergeTree
ORDER BY (customer_id, generation)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'Customers of the fleet repository, one row a change; the newest generation of a customer_id holds.';

CREATE TABLE IF NOT EXISTS server_boot
(
    boot_id UUID COMMENT 'Random id of this run of the server.'
)
ENGINE = Memory
COMMENT 'One row while the server runs, gone when it restarts: how the shipper knows whether a send in doubt met the same run of the server.';
