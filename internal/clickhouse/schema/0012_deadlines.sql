-- The switch also watches controllers and deadlines, keeps to maintenance windows,
-- and says which of its events belong together.

ALTER TABLE events ADD COLUMN IF NOT EXISTS episode String COMMENT 'The same in all events of one trouble, from its first alarm to its recovery; empty where the event stands alone.' CODEC(ZSTD(1)) AFTER detected_at;

ALTER TABLE events COMMENT COLUMN silence_seconds 'at minus the last report before the silence, in seconds; of a deadline, at minus the success before.';

ALTER TABLE events COMMENT COLUMN caused_by 'event_id of the event that is told in the place of this one: that of the host which is down; empty where none.';

ALTER TABLE events COMMENT COLUMN suppressed_by 'Why nobody is told of it: the maintenance window that swallowed the message (maintenance <owner>/<name>, or announced by the agent), retired, guest_gone, deadline_removed or host_silent_at_first_look; empty where it is told.';

ALTER TABLE switch_state
    ADD COLUMN IF NOT EXISTS muted_by String COMMENT 'Why nobody was told of this state yet: as suppressed_by in events, or event and an id as caused_by; empty where it was told.' CODEC(ZSTD(1)) AFTER flapping_spool_seq;

ALTER TABLE switch_state COMMENT COLUMN host_id 'Host; or guest, <host_id>/<vmid>, whose controller it is about.';

ALTER TABLE switch_state COMMENT COLUMN silent '1 where nobody was told of this silence: it was found at the first look, the host flaps, or muted_by says why.';

CREATE TABLE IF NOT EXISTS deadline_state
(
    guest_id    String COMMENT 'Guest: <host_id>/<vmid>.' CODEC(ZSTD(1)),
    deadline    LowCardinality(String) COMMENT 'backup, restore_test or pbs_verify.',
    customer_id LowCardinality(String) COMMENT 'Customer of the host at the decision.',
    overdue     UInt8 COMMENT '1 where the deadline was missed and no success has come since.',
    base_at     DateTime64(3, 'UTC') COMMENT 'The newest success, or the first sight of the guest where that is later, from which the deadline counts.' CODEC(Delta, ZSTD(1)),
    since       DateTime64(3, 'UTC') COMMENT 'Instant at which the condition first held.' CODEC(Delta, ZSTD(1)),
    muted_by    String COMMENT 'Why nobody was told of it yet, as in switch_state; empty where it was told.' CODEC(ZSTD(1)),
    closed_at   Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was closed without a success, because the guest or the deadline was gone; NULL where it was not.',
    decided_at  DateTime64(3, 'UTC') COMMENT 'Slot time of the evaluation that decided it; grows with each row of a deadline.' CODEC(Delta, ZSTD(1)),
    spool_id    LowCardinality(String) COMMENT 'Spool volume that the decision was written to.',
    spool_seq   UInt64 COMMENT 'Sequence number of the decision in the spool; an event of the same decision has the same one.' CODEC(Delta, ZSTD(1)),
    INDEX spool_seq_minmax spool_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (guest_id, deadline, decided_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
COMMENT 'The switch''s memory of deadlines: one row a change. The newest row of a guest and deadline is its state; there is none of a deadline that was never missed. Kept for ever.';

CREATE OR REPLACE VIEW deadlines_overdue
(
    guest_id    String COMMENT 'Guest: <host_id>/<vmid>.',
    host_id     String COMMENT 'Host that it runs on.',
    customer_id String COMMENT 'Customer of the host when it was decided.',
    deadline    String COMMENT 'backup, restore_test or pbs_verify.',
    last_at     DateTime64(3, 'UTC') COMMENT 'The newest success, or the first sight of the guest where that is later.',
    since       DateTime64(3, 'UTC') COMMENT 'Instant at which the deadline passed.',
    muted_by    String COMMENT 'Why nobody was told of it yet; empty where it was told.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    guest_id,
    splitByChar('/', guest_id)[1] AS host_id,
    n.1 AS customer_id,
    toString(deadline) AS deadline,
    n.3 AS last_at,
    n.4 AS since,
    n.5 AS muted_by
FROM
(
    SELECT guest_id, deadline, argMax((toString(customer_id), overdue, base_at, since, muted_by), (decided_at, spool_seq)) AS n
    FROM deadline_state GROUP BY guest_id, deadline
)
WHERE n.2 = 1
COMMENT 'One row a deadline of a guest that is missed now, as the switch decided.';

CREATE OR REPLACE VIEW events_open
(
    customer_id   String COMMENT 'Customer that the host belonged to at the event.',
    host_id       String COMMENT 'Host that the trouble is about.',
    guest_id      String COMMENT 'Guest that the trouble is about; empty where it is the host.',
    type          String COMMENT 'Newest event of the trouble, as host_down or backup_overdue.',
    severity      String COMMENT 'info, warning or critical.',
    since         DateTime64(3, 'UTC') COMMENT 'Instant at which its condition first held.',
    event_id      String COMMENT 'That event.',
    episode       String COMMENT 'As in events.',
    caused_by     String COMMENT 'As in events.',
    suppressed_by String COMMENT 'As in events.'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    n.1 AS customer_id,
    host_id,
    guest_id,
    n.2 AS type,
    n.3 AS severity,
    n.4 AS since,
    n.5 AS event_id,
    n.6 AS episode,
    n.7 AS caused_by,
    n.8 AS suppressed_by
FROM
(
    SELECT
        host_id,
        guest_id,
        multiIf(type LIKE 'host\_%', 'host', type LIKE 'controller\_%', 'controller', replaceRegexpOne(toString(type), '_(overdue|met)$', '')) AS trouble,
        argMax((toString(customer_id), toString(type), toString(severity), at, event_id, episode, caused_by, suppressed_by), (detected_at, at, type NOT LIKE '%\_recovered', event_id)) AS n
    FROM events
    WHERE source = 'switch' AND host_id != ''
    GROUP BY host_id, guest_id, trouble
)
WHERE type NOT LIKE '%\_recovered' AND type NOT LIKE '%\_met'
    AND (type != 'host_never_reported' OR host_id NOT IN (SELECT host_id FROM host_last))
COMMENT 'One row a trouble that goes on, of hosts, controllers and deadlines: its newest event.';

