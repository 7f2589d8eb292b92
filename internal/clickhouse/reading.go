package clickhouse

import (
	"context"
	"errors"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"

	"felhom.eu/hub/internal/hub"
)

// What customers and operators read over HTTP. Whose rows they may see is a condition
// of every query here.

// ReadTimeout bounds one query of a reader.
const ReadTimeout = 5 * time.Second

// readRows is the most rows that one list of an answer may have.
const readRows = 50_000

// reading leaves the other cores to the way of a report.
var reading = ch.Settings{
	"max_threads": 1, "max_execution_time": int(ReadTimeout / time.Second), "max_memory_usage": 800 << 20,
	"max_result_rows": readRows, "result_overflow_mode": "throw",
}

// ErrTooMuch means that a reader asked for more than one answer holds.
var ErrTooMuch = errors.New("more than one answer holds")

// Codes of ClickHouse that say so: TIMEOUT_EXCEEDED, MEMORY_LIMIT_EXCEEDED and
// TOO_MANY_ROWS_OR_BYTES.
var tooMuchCodes = map[int32]bool{159: true, 241: true, 396: true}

// errNobody keeps a mistake of the caller's from showing the operators' events.
var errNobody = errors.New("a reader is a customer or everybody")

// readList makes one query of a reader; next scans a row.
func readList[T any](ctx context.Context, db *DB, sql string, next func(driver.Rows, *T) error, args ...any) (list []T, err error) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	defer func() {
		var e *proto.Exception
		if ctx.Err() != nil || errors.As(err, &e) && tooMuchCodes[e.Code] {
			err = errors.Join(ErrTooMuch, err)
		}
	}()
	rows, err := db.conn.Query(ch.Context(ctx, ch.WithSettings(reading)), sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list = []T{}
	for rows.Next() {
		var one T
		if err := next(rows, &one); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, rows.Err()
}

// Events returns the events that a reader asks for, in the order of their places, and
// each once: a restore may have made one again, with a later place.
func (db *DB) Events(ctx context.Context, q hub.EventQuery) ([]hub.Event, error) {
	whose := "customer_id = @customer"
	switch {
	case q.Everybody:
		whose = "1"
	case q.Customer == "":
		return nil, errNobody
	}
	where := []string{whose}
	args := []any{ch.Named("customer", q.Customer), ch.Named("limit", q.Limit)}
	add := func(name string, value any, condition string) {
		where, args = append(where, condition), append(args, ch.Named(name, value))
	}
	if q.Host != "" {
		add("host", q.Host, "host_id = @host")
	}
	if q.Guest != "" {
		add("guest", q.Guest, "guest_id = @guest")
	}
	if q.Type != "" {
		add("type", string(q.Type), "type = @type")
	}
	if !q.Since.IsZero() {
		add("since", q.Since.UnixMilli(), "detected_at >= fromUnixTimestamp64Milli(toInt64(@since), 'UTC')")
	}
	if !q.Until.IsZero() {
		add("until", q.Until.UnixMilli(), "detected_at < fromUnixTimestamp64Milli(toInt64(@until), 'UTC')")
	}
	if q.After != (hub.EventPlace{}) {
		const place = "(toUnixTimestamp64Milli(detected_at), toUnixTimestamp64Milli(at), event_id)"
		const after = "(toInt64(@found), toInt64(@began), @id)"
		args = append(args, ch.Named("found", q.After.DetectedAt.UnixMilli()), ch.Named("began", q.After.At.UnixMilli()), ch.Named("id", q.After.ID))
		where = append(where, "detected_at >= fromUnixTimestamp64Milli(toInt64(@found), 'UTC')", place+" > "+after,
			"event_id NOT IN (SELECT event_id FROM events WHERE "+whose+" AND "+place+" <= "+after+")")
	}
	return readList(ctx, db, `
SELECT event_id, toString(type), toString(severity), toString(customer_id), host_id, guest_id, at, detected_at, episode, reason, toString(source),
    folded_into, caused_by, suppressed_by, hosts
FROM events WHERE `+strings.Join(where, " AND ")+`
ORDER BY detected_at, at, event_id LIMIT 1 BY event_id LIMIT @limit`, scanEvent, args...)
}

func scanEvent(rows driver.Rows, e *hub.Event) error {
	var kind string
	err := rows.Scan(&e.ID, &kind, &e.Level, &e.CustomerID, &e.HostID, &e.GuestID, &e.At, &e.DetectedAt, &e.Episode, &e.Reason, &e.Source,
		&e.FoldedInto, &e.CausedBy, &e.SuppressedBy, &e.Hosts)
	e.Type = hub.EventType(kind)
	return err
}

// CustomerStatus is how a customer's hosts are, of those that one page tells, and
// what is on and around them. Its fields are those of the views.
type CustomerStatus struct {
	Hosts       []HostStatus       `json:"hosts"`
	Guests      []GuestStatus      `json:"guests"` // that the newest reports list
	Controllers []ControllerStatus `json:"controllers"`
	OpenEvents  []OpenEvent        `json:"open_events"`
	Overdue     []OverdueDeadline  `json:"overdue"`
}

// HostStatus is a row of the view hosts.
type HostStatus struct {
	HostID       string     `json:"host_id"`
	DisplayName  string     `json:"display_name"`
	Site         string     `json:"site"`
	Lifecycle    string     `json:"lifecycle"`
	State        string     `json:"state"`
	StateSince   *time.Time `json:"state_since"`
	LastReportAt *time.Time `json:"last_report_at"`
	CPUPercent   *float64   `json:"cpu_percent"`
	MemPercent   *float64   `json:"mem_percent"`
	DiskPercent  *float64   `json:"disk_percent"`
}

// GuestStatus is a row of the view guests.
type GuestStatus struct {
	GuestID    string    `json:"guest_id"`
	HostID     string    `json:"host_id"`
	Name       string    `json:"name"`
	Status     string    `json:"status"`
	LastSeenAt time.Time `json:"last_seen_at"`
}

// ControllerStatus is a row of the view controllers.
type ControllerStatus struct {
	GuestID           string     `json:"guest_id"`
	HostID            string     `json:"host_id"`
	State             string     `json:"state"`
	StateSince        *time.Time `json:"state_since"`
	LastReportAt      time.Time  `json:"last_report_at"`
	ControllerVersion string     `json:"controller_version"`
	Status            string     `json:"status"`
	CPUPercent        *float64   `json:"cpu_percent"`
	MemoryPercent     *float64   `json:"memory_percent"`
	DiskPercent       *float64   `json:"disk_percent"`
	LastBackupAt      *time.Time `json:"last_backup_at"`
}

// OpenEvent is a row of the view events_open.
type OpenEvent struct {
	EventID      string    `json:"event_id"`
	Type         string    `json:"type"`
	Severity     string    `json:"severity"`
	HostID       string    `json:"host_id"`
	GuestID      string    `json:"guest_id"`
	Since        time.Time `json:"since"`
	Episode      string    `json:"episode"`
	CausedBy     string    `json:"caused_by"`
	SuppressedBy string    `json:"suppressed_by"`
}

// OverdueDeadline is a row of the view deadlines_overdue.
type OverdueDeadline struct {
	GuestID  string    `json:"guest_id"`
	HostID   string    `json:"host_id"`
	Deadline string    `json:"deadline"`
	LastAt   time.Time `json:"last_at"`
	Since    time.Time `json:"since"`
}

// CustomerStatus tells of those of the named hosts that are the customer's, and of what
// belongs to them. The views gather by host and by guest: with these named they do not
// gather the whole fleet.
func (db *DB) CustomerStatus(ctx context.Context, customer string, hosts []string) (s CustomerStatus, err error) {
	if customer == "" {
		return s, errNobody
	}
	if len(hosts) == 0 {
		hosts = []string{""} // a list must not be empty, and no host has this id
	}
	const theirs = " WHERE customer_id = @customer AND host_id IN (@hosts)"
	args := []any{ch.Named("customer", customer), ch.Named("hosts", hosts)}
	if s.Hosts, err = readList(ctx, db, `
SELECT host_id, display_name, site, lifecycle, state, state_since, last_report_at, cpu_percent, mem_percent, disk_percent
FROM hosts`+theirs+` ORDER BY host_id`, func(rows driver.Rows, h *HostStatus) error {
		return rows.Scan(&h.HostID, &h.DisplayName, &h.Site, &h.Lifecycle, &h.State, &h.StateSince, &h.LastReportAt, &h.CPUPercent, &h.MemPercent, &h.DiskPercent)
	}, args...); err != nil {
		return s, err
	}
	if s.Guests, err = readList(ctx, db, `
SELECT guest_id, host_id, name, status, last_seen_at
FROM guests`+theirs+` AND present ORDER BY host_id, vmid`, func(rows driver.Rows, g *GuestStatus) error {
		return rows.Scan(&g.GuestID, &g.HostID, &g.Name, &g.Status, &g.LastSeenAt)
	}, args...); err != nil {
		return s, err
	}
	guests, err := readList(ctx, db, "SELECT DISTINCT guest_id FROM controller_last WHERE host_id IN (@hosts)",
		func(rows driver.Rows, id *string) error { return rows.Scan(id) }, args...)
	if err != nil {
		return s, err
	}
	s.Controllers = []ControllerStatus{}
	if len(guests) > 0 {
		if s.Controllers, err = readList(ctx, db, `
SELECT guest_id, host_id, state, state_since, last_report_at, controller_version, status, cpu_percent, memory_percent, disk_percent, last_backup_at
FROM controllers`+theirs+` AND guest_id IN (@guests) ORDER BY host_id, guest_id`, func(rows driver.Rows, c *ControllerStatus) error {
			return rows.Scan(&c.GuestID, &c.HostID, &c.State, &c.StateSince, &c.LastReportAt, &c.ControllerVersion, &c.Status, &c.CPUPercent, &c.MemoryPercent, &c.DiskPercent, &c.LastBackupAt)
		}, append(args, ch.Named("guests", guests))...); err != nil {
			return s, err
		}
	}
	if s.OpenEvents, err = readList(ctx, db, `
SELECT event_id, type, severity, host_id, guest_id, since, episode, caused_by, suppressed_by
FROM events_open`+theirs+` ORDER BY host_id, guest_id, type`, func(rows driver.Rows, e *OpenEvent) error {
		return rows.Scan(&e.EventID, &e.Type, &e.Severity, &e.HostID, &e.GuestID, &e.Since, &e.Episode, &e.CausedBy, &e.SuppressedBy)
	}, args...); err != nil {
		return s, err
	}
	s.Overdue, err = readList(ctx, db, `
SELECT guest_id, host_id, deadline, last_at, since
FROM deadlines_overdue`+theirs+` ORDER BY host_id, guest_id, deadline`, func(rows driver.Rows, d *OverdueDeadline) error {
		return rows.Scan(&d.GuestID, &d.HostID, &d.Deadline, &d.LastAt, &d.Since)
	}, args...)
	return s, err
}
