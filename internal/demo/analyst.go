package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/hub"
)

// analyst sees the demo as an analyst does: by SQL over ClickHouse's HTTP
// interface, and nothing else.
type analyst struct {
	engine func() (engine.Description, bool) // asked at each query: a restarted engine may have moved
	client http.Client

	since time.Time       // events found before it are not told
	told  map[string]bool // ids of events
}

var errNoEngine = errors.New("ClickHouse does not run")

// query returns the rows of a SELECT, each as its values.
func (a *analyst) query(ctx context.Context, sql string) ([][]string, error) {
	d, ok := a.engine()
	if !ok {
		return nil, errNoEngine
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.HTTPURL(engine.RoleAnalyst).Reveal(), strings.NewReader(sql+" FORMAT TSV"))
	if err != nil {
		return nil, err
	}
	reply, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ClickHouse: %s", strings.TrimSpace(string(text)))
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows, nil
}

// eventRows are the events from a time on, oldest first.
const eventRows = `SELECT event_id, type, host_id, customer_id, toUnixTimestamp64Milli(detected_at), silence_seconds, source, guest_id, reason
FROM events WHERE detected_at >= fromUnixTimestamp64Milli(%d) ORDER BY detected_at, at, event_id`

// events returns the events that were not told yet.
func (a *analyst) events(ctx context.Context) ([]hub.Event, error) {
	rows, err := a.query(ctx, fmt.Sprintf(eventRows, a.since.UnixMilli()))
	if err != nil {
		return nil, err
	}
	var events []hub.Event
	for _, row := range rows {
		e, err := eventOf(row)
		if err != nil {
			return nil, err
		}
		if !a.told[e.ID] {
			events = append(events, e)
		}
	}
	for _, e := range events {
		a.told[e.ID] = true
		a.since = e.DetectedAt // not later: others may have the same
	}
	return events, nil
}

func eventOf(row []string) (e hub.Event, err error) {
	if len(row) != 9 {
		return e, fmt.Errorf("an event of %d columns", len(row))
	}
	e.ID, e.Type, e.HostID, e.CustomerID = row[0], hub.EventType(row[1]), row[2], row[3]
	e.Source, e.GuestID, e.Reason = row[6], row[7], row[8]
	detected, err := strconv.ParseInt(row[4], 10, 64)
	if err != nil {
		return e, err
	}
	e.DetectedAt = time.UnixMilli(detected)
	e.SilenceSeconds, err = strconv.ParseFloat(row[5], 64)
	return e, err
}

// countRows has one row a state of the active hosts, and one of all reports and
// controllers' events.
const countRows = `SELECT 'reports', count() FROM
(
    SELECT received_at AS at FROM host_reports UNION ALL SELECT received_at AS at FROM controller_reports
    UNION ALL SELECT detected_at AS at FROM events WHERE source = 'controller'
) WHERE at >= fromUnixTimestamp64Milli(%d)
UNION ALL SELECT if(lifecycle = 'active', state, lifecycle) AS is, count() FROM hosts GROUP BY is`

// counts returns the number of reports and events received since then that ClickHouse has
// ("reports"), and that of the hosts by state ("ok", "stale", …, "paused").
func (a *analyst) counts(ctx context.Context, since time.Time) (map[string]int64, error) {
	rows, err := a.query(ctx, fmt.Sprintf(countRows, since.UnixMilli()))
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int64)
	for _, row := range rows {
		if len(row) != 2 {
			return nil, fmt.Errorf("counts of %d columns", len(row))
		}
		if counts[row[0]], err = strconv.ParseInt(row[1], 10, 64); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// line is the live line: how many reports the hub acknowledged, how many of
// them an analyst finds, what the switch says, and which fleet is in force.
func line(accepted int64, counts map[string]int64, revision string) string {
	if counts == nil {
		return fmt.Sprintf("%s accepted, ClickHouse is away: they wait in the spool | fleet %s", number(accepted), short(revision))
	}
	hosts := fmt.Sprintf("%d ok %d stale %d down", counts["ok"], counts["stale"], counts["down"])
	for _, more := range []struct{ state, word string }{{"never_seen", "new"}, {"paused", "paused"}} {
		if n := counts[more.state]; n > 0 {
			hosts += fmt.Sprintf(" %d %s", n, more.word)
		}
	}
	return fmt.Sprintf("%s accepted, %s in ClickHouse | %s | fleet %s", number(accepted), number(counts["reports"]), hosts, short(revision))
}
