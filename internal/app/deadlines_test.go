package app_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
)

// reporter is an agent whose reports list its guests and the newest successes.
type reporter struct {
	*poster
	clock   func() time.Time
	ahead   time.Duration // of its clock
	guests  []int
	backups []map[string]any
	tests   []map[string]any
}

// reports has a host of a world report guests.
func (w *world) reports(host string, guests ...int) *reporter {
	r := &reporter{poster: w.agent(host), clock: w.clock.Now, guests: guests}
	r.poster.body = r.body
	return r
}

func (r *reporter) body(number int) string {
	guests := []map[string]any{}
	for _, vmid := range r.guests {
		guests = append(guests, map[string]any{"vmid": vmid, "status": "running"})
	}
	lists, err := json.Marshal(map[string]any{"guests": guests, "backups": r.backups, "restore_tests": r.tests})
	if err != nil {
		panic(err)
	}
	return strings.TrimSuffix(reportBody(r.poster.id, number), "}") + "," + strings.TrimPrefix(string(lists), "{")
}

// backup succeeds now, by the agent's clock; it is listed in all reports from then on.
func (r *reporter) backup(vmid int, status string) {
	now := r.clock().Add(r.ahead)
	r.backups = append(r.backups, map[string]any{"vmid": vmid, "target": "pbs", "status": status,
		"started_at": now.Add(-time.Minute).Format(time.RFC3339), "finished_at": now.Format(time.RFC3339)})
}

func (r *reporter) restoreTest(vmid int) {
	r.tests = append(r.tests, map[string]any{"vmid": vmid, "status": "ok", "tested_at": r.clock().Add(r.ahead).Format(time.RFC3339)})
}

func newDeadlines(t *testing.T) *world {
	w := newWorld(t, enginetest.Shared(t), usual)
	name := "customers/acme/customer.yaml"
	w.write(name, strings.Replace(w.read(name), "spec:\n", "spec:\n  deadlines: {backup: 2h, restoreTest: 5h}\n", 1))
	w.push("acme has deadlines")
	return w
}

// A backup is missed, and made after all; another is made in time by an agent whose
// clock is ten years ahead, and then no more: its listing it again and again, and a
// restart of the hub, push nothing away. A guest that goes closes its own.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	w := newDeadlines(t)
	late, ahead := w.reports("berlin-0", 101, 102), w.reports("berlin-1", 101)
	ahead.ahead = 10 * 365 * 24 * time.Hour
	w.start()
	from := w.clock.Now()
	w.pass(60 * time.Minute) // first seen at 10 min
	late.backup(101, "failed")
	late.backup(102, "ok")
	ahead.backup(101, "ok")
	w.pass(80 * time.Minute) // in the reports of 70 min on
	w.away(0)
	w.pass(20 * time.Minute)
	late.backup(101, "ok") // at 160 min
	w.pass(60 * time.Minute)
	late.guests = []int{101}
	w.pass(75 * time.Minute)
	w.tells(from,
		"2h10m0s backup_overdue berlin-0/101",
		"2h40m0s backup_met berlin-0/101",
		"3h0m0s backup_overdue berlin-0/102",
		"3h10m0s backup_overdue berlin-1/101",
		"3h55m0s backup_met berlin-0/102, guest_gone", // by the evaluation after its report
		"4h40m0s backup_overdue berlin-0/101")
	if got := fmt.Sprint(w.query("SELECT guest_id, deadline FROM @deadlines_overdue ORDER BY guest_id")); got != "[[berlin-0/101 backup] [berlin-1/101 backup]]" {
		t.Errorf("overdue: %s", got)
	}
}

// The hub is away when a deadline passes: one is met meanwhile, and nobody hears of it;
// another is not. A host is down when one passes, and has made it when it is back.
func TestDeadlinePassesWhileNobodyHears(t *testing.T) {
	t.Parallel()
	w := newDeadlines(t)
	met, missed, down := w.reports("berlin-0", 101), w.reports("berlin-1", 101), w.reports("berlin-2", 101)
	w.start()
	from := w.clock.Now()
	w.pass(20 * time.Minute)
	w.stop()
	w.pass(110 * time.Minute)
	met.backup(101, "ok") // at 130 min
	met.restoreTest(101)
	w.pass(20 * time.Minute)
	w.start()
	w.pass(10 * time.Minute)
	missed.backup(101, "ok") // at 160 min
	down.backup(101, "ok")
	w.pass(20 * time.Minute)
	w.silence("berlin-2") // last heard at 180 min
	w.pass(130 * time.Minute)
	down.backup(101, "ok") // at 310 min
	w.pass(10 * time.Minute)
	w.agent("berlin-2").silent = false
	w.pass(30 * time.Minute)
	w.tells(from,
		"2h10m0s backup_overdue berlin-1/101",
		"2h10m0s backup_overdue berlin-2/101",
		"2h40m0s backup_met berlin-1/101",
		"2h40m0s backup_met berlin-2/101",
		"3h30m0s host_stale berlin-2",
		"4h0m0s host_down berlin-2",
		"4h10m0s backup_overdue berlin-0/101",
		"4h40m0s backup_overdue berlin-1/101",
		"4h40m0s backup_overdue berlin-2/101, caused by host_down",
		"5h10m0s restore_test_overdue berlin-1/101",
		"5h10m0s restore_test_overdue berlin-2/101, caused by host_down",
		"5h10m0s backup_met berlin-2/101, caused by host_down",
		"5h30m0s host_recovered berlin-2")
}
