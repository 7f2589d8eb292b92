package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
)

// controllers are guests of a world whose controllers report when the hosts do.
type controllers struct {
	*world
	key    map[string]hub.Secret // by customer
	guests []string
	silent map[string]bool
	backup map[string]time.Time // that a controller tells of
	posts  int
}

func newControllers(t *testing.T, places []place, guests ...string) *controllers {
	t.Helper()
	c := &controllers{world: newWorld(t, enginetest.Shared(t), places), key: map[string]hub.Secret{}, guests: guests, silent: map[string]bool{}, backup: map[string]time.Time{}}
	for _, p := range places {
		if c.key[p.customer] == (hub.Secret{}) {
			c.key[p.customer] = c.customerKey(p.customer)
		}
	}
	c.push("keys of the customers")
	c.also = c.report
	return c
}

func (c *controllers) report() {
	c.t.Helper()
	if c.clock.ran%reportEvery != 0 {
		return
	}
	for _, guest := range c.guests {
		if !c.silent[guest] {
			c.reportOf(guest)
		}
	}
}

func (c *controllers) reportOf(guest string) {
	c.t.Helper()
	customer := map[string]string{"berlin": "acme", "oslo": "globex"}[strings.Split(guest, "-")[0]]
	c.posts++
	more := ""
	if at, ok := c.backup[guest]; ok {
		more = fmt.Sprintf(`,"backup":{"last_success_at":%q,"last_status":"failed"}`, at.Format(time.RFC3339))
	}
	body := fmt.Sprintf(`{"customer_id":%q,"guest_id":%q,"reported_at":"2026-06-08T09:15:00Z","controller_version":"t","uptime_seconds":%d%s}`, customer, guest, c.posts, more)
	if status, reply := c.hub.post("/api/v1/report", c.key[customer], body); status != http.StatusOK {
		c.t.Errorf("%s reports: %d %s", guest, status, reply)
	}
}

// tells holds that these are the events of the switch about hosts, their guests and
// deadlines, in the order of their instants: "5m controller_stale berlin-0/101", the
// time since start, with what they are caused or suppressed by behind it. Ids are checked:
// what one is caused by is named by its type.
func (w *world) tells(start time.Time, want ...string) {
	w.t.Helper()
	w.hub.eventually("all is shipped", func() bool { return w.hub.Unshipped() == 0 })
	var got []string
	for _, row := range w.query(`SELECT toUnixTimestamp64Milli(e.at), e.type, if(e.guest_id = '', e.host_id, e.guest_id), c.type, e.suppressed_by,
			e.reason LIKE '%not_told_before_by%', e.severity
		FROM @events AS e LEFT JOIN @events AS c ON c.event_id = e.caused_by
		WHERE e.source = 'switch' AND e.host_id != '' ORDER BY e.at, e.host_id, e.guest_id, e.spool_seq`) {
		var ms int64
		if _, err := fmt.Sscan(row[0], &ms); err != nil {
			w.t.Fatal(err)
		}
		text := fmt.Sprintf("%s %s %s", time.UnixMilli(ms).Sub(start).Truncate(time.Second), row[1], row[2])
		if row[3] != "" {
			text += ", caused by " + row[3]
		}
		if row[4] != "" {
			text += ", " + row[4]
		}
		if row[5] == "1" {
			text += ", after all"
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// A controller falls silent while its host reports; it is restarted meanwhile.
func TestControllerFallsSilent(t *testing.T) {
	t.Parallel()
	c := newControllers(t, usual, "berlin-0/101", "berlin-0/102", "oslo-1/101")
	c.start()
	c.pass(10 * time.Minute)
	from := c.clock.Now()
	c.silent["berlin-0/101"] = true
	c.pass(40 * time.Minute)
	c.away(0)
	c.pass(30 * time.Minute)
	c.silent["berlin-0/101"] = false
	c.pass(20 * time.Minute)
	c.tells(from, "30m0s controller_stale berlin-0/101", "1h0m0s controller_down berlin-0/101", "1h20m0s controller_recovered berlin-0/101")
	if rows := c.query("SELECT count() FROM @events_open"); rows[0][0] != "0" {
		t.Errorf("%s troubles go on", rows[0][0])
	}
	if rows := c.query("SELECT guest_id, state FROM @controllers ORDER BY guest_id"); fmt.Sprint(rows) != "[[berlin-0/101 ok] [berlin-0/102 ok] [oslo-1/101 ok]]" {
		t.Errorf("controllers: %v", rows)
	}
}

// A host goes down with its guests: they are folded into it. One of them does not come
// back with it, and is told of when it has had the grace.
func TestHostGoesDownWithItsGuests(t *testing.T) {
	t.Parallel()
	c := newControllers(t, usual, "berlin-0/101", "berlin-0/102", "berlin-1/101")
	c.start()
	c.pass(10 * time.Minute)
	from := c.clock.Now()
	c.silent["berlin-0/101"] = true // dies ten minutes before the others
	c.pass(10 * time.Minute)
	c.silence("berlin-0")
	c.silent["berlin-0/102"] = true
	c.pass(80 * time.Minute)
	c.silent["berlin-0/102"] = false
	c.agent("berlin-0").silent = false
	c.pass(50 * time.Minute)
	c.silent["berlin-0/101"] = false
	c.pass(20 * time.Minute)
	c.tells(from,
		"40m0s host_stale berlin-0",
		"1h0m0s controller_down berlin-0/101, caused by host_down",
		"1h10m0s host_down berlin-0",
		"1h10m0s controller_down berlin-0/102, caused by host_down",
		"1h40m0s host_recovered berlin-0",
		"1h40m0s controller_recovered berlin-0/102, caused by host_down",
		"2h0m0s controller_down berlin-0/101, after all",
		"2h30m0s controller_recovered berlin-0/101")
}

// What happens in a window of the fleet repository is recorded and not told; what is
// still wrong when it ends is told then. The window comes by a push to a running hub.
func TestMaintenanceWindow(t *testing.T) {
	t.Parallel()
	c := newControllers(t, usual, "berlin-0/101", "berlin-1/101")
	c.start()
	c.pass(10 * time.Minute)
	from := c.clock.Now()
	window := fmt.Sprintf("  maintenance:\n    - {name: move, reason: new rack, from: %s, to: %s}\n",
		from.Format(time.RFC3339), from.Add(2*time.Hour).Format(time.RFC3339))
	name := "customers/acme/customer.yaml"
	c.write(name, strings.Replace(c.read(name), "spec:\n", "spec:\n"+window, 1))
	c.pulls(c.push("acme moves"))
	c.silence("berlin-0", "berlin-1", "oslo-0")
	c.silent["berlin-0/101"], c.silent["berlin-1/101"] = true, true
	c.pass(90 * time.Minute)
	c.agent("berlin-1").silent, c.silent["berlin-1/101"] = false, false
	c.pass(60 * time.Minute)
	const muted = ", maintenance customer/acme/move"
	c.tells(from,
		"30m0s host_stale berlin-0"+muted,
		"30m0s host_stale berlin-1"+muted,
		"30m0s host_stale oslo-0",
		"1h0m0s host_down berlin-0"+muted,
		"1h0m0s controller_down berlin-0/101"+muted,
		"1h0m0s host_down berlin-1"+muted,
		"1h0m0s controller_down berlin-1/101"+muted,
		"1h0m0s host_down oslo-0",
		"1h40m0s host_recovered berlin-1"+muted,
		"1h40m0s controller_recovered berlin-1/101"+muted,
		"2h0m0s host_down berlin-0, after all")
}

// pulls has the hub pull until a commit is in force.
func (w *world) pulls(commit string) {
	w.t.Helper()
	w.hub.Reload()
	w.hub.eventually("the commit is in force", func() bool { return w.hub.fleetStatus().Revision == commit })
}

// An agent announces maintenance in a report, and says no more until it is over, or
// for longer. The hub is restarted in between.
func TestAnnouncedMaintenance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Shared(t), usual)
	w.start()
	w.pass(10 * time.Minute)
	from := w.clock.Now()
	for _, id := range []string{"berlin-0", "berlin-1"} {
		a := w.agent(id)
		a.body = func(number int) string {
			until := from.Add(100 * time.Minute).Format(time.RFC3339)
			return strings.TrimSuffix(reportBody(id, number), "}") + `,"maintenance":{"until":"` + until + `","reason":"new disks"}}`
		}
		w.silence(id)
		w.speak(id)
		w.silence(id)
	}
	w.pass(40 * time.Minute)
	w.away(0)
	w.pass(40 * time.Minute)
	w.speak("berlin-1")
	w.pass(30 * time.Minute)
	const muted = ", maintenance announced by the agent"
	w.tells(from,
		"30m0s host_stale berlin-0"+muted, "30m0s host_stale berlin-1"+muted,
		"1h0m0s host_down berlin-0"+muted, "1h0m0s host_down berlin-1"+muted,
		"1h20m0s host_recovered berlin-1"+muted,
		"1h40m0s host_down berlin-0, after all")
}

// Of one guest only the controller tells of backups. Its deadline waits for the
// controller's report, as long as that is heard, and for its silence else. hub switch
// explain tells of it.
func TestControllerTellsOfBackups(t *testing.T) {
	t.Parallel()
	c := newControllers(t, usual, "berlin-0/101")
	name := "customers/acme/customer.yaml"
	c.write(name, strings.Replace(c.read(name), "spec:\n", "spec:\n  deadlines: {backup: 2h}\n", 1))
	c.push("acme has deadlines")
	c.reports("berlin-0", 101)
	c.start()
	from := c.clock.Now()
	c.pass(55 * time.Minute)
	c.backup["berlin-0/101"] = c.clock.Now()
	c.pass(130 * time.Minute) // due at 2h55
	x := c.explain("berlin-0/101")
	if d := x.Deadlines[0]; d.Deadline != "backup" || !d.Last.Equal(from.Add(55*time.Minute)) || !d.Due.Equal(from.Add(175*time.Minute)) || !d.Overdue || d.Reason != "overdue" || x.State != "ok" {
		t.Errorf("explained: %+v", x)
	}
	c.backup["berlin-0/101"] = c.clock.Now().Add(-7 * time.Minute)
	c.pass(5 * time.Minute)
	c.silent["berlin-0/101"] = true
	c.pass(130 * time.Minute)
	c.tells(from,
		"2h55m0s backup_overdue berlin-0/101",
		"2h58m0s backup_met berlin-0/101",
		"3h40m0s controller_stale berlin-0/101",
		"4h10m0s controller_down berlin-0/101",
		"4h58m0s backup_overdue berlin-0/101")
}

// explained is what a test wants of hub switch explain.
type explained struct {
	State     string
	Deadlines []struct {
		Deadline string
		Last     time.Time `json:"last_at"`
		Due      time.Time `json:"due_at"`
		Overdue  bool
		Reason   string
	}
	Rule struct{ State string }
}

func (w *world) explain(id string) (x explained) {
	w.t.Helper()
	res, err := control.Client(w.cfg.DataDir).Get("http://hub/switch/explain?host=" + url.QueryEscape(id))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(reply, &x)
	}
	if err != nil || len(x.Deadlines) == 0 {
		w.t.Fatalf("%v: %s", err, reply)
	}
	x.State = x.Rule.State
	return x
}
