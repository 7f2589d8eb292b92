-- The views that people read. A definer, so that a grant on the view is enough.
-- They tell a missing row by its empty host_id, whatever the session has set.

CREATE OR REPLACE VIEW hosts
(
    host_id            String COMMENT 'Host.',
    customer_id        String COMMENT 'Customer that it belongs to now.',
    display_name       String COMMENT 'Name for people.',
    site               String COMMENT 'Label site; empty where absent.',
    lifecycle          String COMMENT 'active or paused.',
    state              String COMMENT 'What the switch last decided: never_seen, ok, stale or down. A host that reported before the switch first looked at it is ok.',
    state_since        Nullable(DateTime64(3, 'UTC')) COMMENT 'Instant at which the state began; NULL where the switch has not looked yet.',
    last_report_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'received_at of the newest report; NULL where there is none.',
    agent_version      String COMMENT 'Of the newest report; empty where there is none.',
    cpu_percent        Nullable(Float64) COMMENT 'Of the newest report, 0-100.',
    mem_percent        Nullable(Float64) COMMENT 'Of the newest report, 0-100.',
    disk_percent       Nullable(Float64) COMMENT 'Of the newest report, 0-100.',
    guest_total        UInt32 COMMENT 'Guests in the newest report.',
    guest_running      UInt32 COMMENT 'Running guests in the newest report.',
    cloudflared_status String COMMENT 'Of the newest report; empty where absent.',
    fleet_revision     String COMMENT 'Commit that last changed the host''s entry in the register.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    f.host_id AS host_id,
    f.entry.1 AS customer_id,
    f.entry.2 AS display_name,
    f.entry.3 AS site,
    f.entry.4 AS lifecycle,
    multiIf(l.host_id = '', 'never_seen', s.state = '', 'ok', s.state) AS state,
    if(s.host_id = '', NULL, s.since) AS state_since,
    if(l.host_id = '', NULL, l.last_report_at) AS last_report_at,
    l.latest.agent_version AS agent_version,
    l.latest.cpu_percent AS cpu_percent,
    l.latest.mem_percent AS mem_percent,
    l.latest.disk_percent AS disk_percent,
    l.latest.guest_total AS guest_total,
    l.latest.guest_running AS guest_running,
    l.latest.cloudflared_status AS cloudflared_status,
    f.entry.5 AS fleet_revision
FROM
(
    SELECT host_id, argMax((toString(customer_id), display_name, toString(site), toString(lifecycle), revision, removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.6 = 0 AND entry.4 != 'retired'
) AS f
LEFT JOIN
(
    SELECT host_id, max(last_report_at) AS last_report_at, argMaxMerge(latest) AS latest
    FROM host_last GROUP BY host_id
) AS l ON l.host_id = f.host_id
LEFT JOIN
(
    SELECT host_id, argMax(toString(state), (decided_at, spool_seq)) AS state, argMax(since, (decided_at, spool_seq)) AS since
    FROM switch_state GROUP BY host_id
) AS s ON s.host_id = f.host_id
SETTINGS join_use_nulls = 0
COMMENT 'One row an enrolled host that is not retired: who owns it, what the switch says, its newest metrics.';

CREATE OR REPLACE VIEW guests
(
    guest_id           String COMMENT '<host_id>/<vmid>.',
    host_id            String COMMENT 'Host that the guest ran on.',
    customer_id        String COMMENT 'Customer that the host belongs to now.',
    vmid               UInt32 COMMENT 'Proxmox id of the guest, unique on its host.',
    name               String COMMENT 'Newest name.',
    status             String COMMENT 'Newest status, as running or stopped.',
    controller_version String COMMENT 'Newest version of the controller in it; empty where there is none.',
    last_seen_at       DateTime64(3, 'UTC') COMMENT 'received_at of the newest report that listed the guest.',
    present            Bool COMMENT 'Whether the host''s newest report lists the guest.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    concat(g.host_id, '/', toString(g.vmid)) AS guest_id,
    g.host_id AS host_id,
    f.entry.1 AS customer_id,
    g.vmid AS vmid,
    g.latest.name AS name,
    g.latest.status AS status,
    g.latest.controller_version AS controller_version,
    g.seen.1 AS last_seen_at,
    toBool(g.seen = (l.last_report_at, l.position.2)) AS present
FROM
(
    SELECT host_id, vmid, max(last_seen_at) AS seen, argMaxMerge(latest) AS latest
    FROM guest_last GROUP BY host_id, vmid
) AS g
INNER JOIN
(
    SELECT host_id, argMax((toString(customer_id), toString(lifecycle), removed), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.3 = 0 AND entry.2 != 'retired'
) AS f ON f.host_id = g.host_id
INNER JOIN
(
    SELECT host_id, max(last_report_at) AS last_report_at, argMaxMerge(position) AS position
    FROM host_last GROUP BY host_id
) AS l ON l.host_id = g.host_id
SETTINGS join_use_nulls = 0
COMMENT 'One row a guest ever seen on an enrolled host that is not retired, with its newest values.';
