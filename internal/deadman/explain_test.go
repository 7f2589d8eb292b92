package deadman_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/hub"
)

// explain asks of an instant, and zero of now.
func (w *world) explain(host string, t time.Time) deadman.Explanation {
	w.t.Helper()
	x, err := w.sw.Explain(w.t.Context(), host, t)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(x.Unsure) > 0 {
		w.t.Errorf("unsure: %q", x.Unsure)
	}
	return x
}

func (w *world) reasonIs(host string, d time.Duration, want deadman.Reason) deadman.Explanation {
	w.t.Helper()
	w.now = at(d)
	x := w.explain(host, time.Time{})
	if x.Reason != want || len(x.Events) > 0 {
		w.t.Errorf("%s at %s: %s %+v, want %s", host, d, x.Reason, x.Events, want)
	}
	return x
}

func TestExplainFollowsAHostThroughItsLife(t *testing.T) {
	h := &hub.Host{ID: "h", Customer: "acme", Labels: map[string]string{"site": "berlin"}, Lifecycle: hub.Active}
	w := newWorld(t, h, &hub.Host{ID: "new", Customer: "acme", Lifecycle: hub.Active, EnrollBy: at(time.Hour)})
	w.reasonIs("h", time.Second, deadman.ReasonNeverReported)
	w.reasonIs("new", time.Second, deadman.ReasonNotDueYet)
	first := w.report("h", time.Minute)
	if x := w.reasonIs("h", 2*time.Minute, deadman.ReasonFirstLook); x.Last != first.Position || x.Source != "clickhouse" || x.Site != "berlin" {
		t.Errorf("%+v", x)
	}
	w.tick(2 * time.Minute)
	x := w.reasonIs("h", 20*time.Minute, deadman.ReasonHeard)
	if x.Silence.Length != 19*time.Minute || !x.Stale.Equal(at(31*time.Minute)) || !x.Down.Equal(at(61*time.Minute)) || x.State != hub.OK {
		t.Errorf("%+v", x)
	}

	// What is about to be raised is told with the id that it will have.
	w.now = at(31 * time.Minute)
	x = w.explain("h", time.Time{})
	if len(x.Events) != 1 || x.Reason != "silence_reached_stale_after" || x.Events[0].ID != hub.EventID(hub.HostStale, "h", first.Position) || len(x.Raised) != 0 {
		t.Errorf("%s %+v", x.Reason, x.Events)
	}
	w.tick(31 * time.Minute)
	x = w.reasonIs("h", 40*time.Minute, deadman.ReasonTold)
	if len(x.Raised) != 1 || x.Raised[0].ID != hub.EventID(hub.HostStale, "h", first.Position) || x.Previous.State != hub.Stale || !x.Down.Equal(at(61*time.Minute)) {
		t.Errorf("%+v", x)
	}
	w.tick(62 * time.Minute)
	w.report("h", 70*time.Minute)
	w.tick(71 * time.Minute)

	// The past is explained by what was known then.
	for _, c := range []struct {
		at     time.Duration
		events string
		reason deadman.Reason
		raised int
	}{
		{20 * time.Minute, "", deadman.ReasonHeard, 0},
		{31 * time.Minute, "host_stale", "silence_reached_stale_after", 1},
		{40 * time.Minute, "", deadman.ReasonTold, 1},
		{62 * time.Minute, "host_down", "silence_reached_down_after", 2},
		{69 * time.Minute, "", deadman.ReasonTold, 2},
		{71 * time.Minute, "host_recovered", "report_after_silence", 3},
	} {
		x := w.explain("h", at(c.at))
		var raises string
		for _, e := range x.Events {
			raises += string(e.Type)
		}
		if raises != c.events || x.Reason != c.reason || len(x.Raised) != c.raised {
			t.Errorf("at %s: raises %q, %s, raised before %d; want %+v", c.at, raises, x.Reason, len(x.Raised), c)
		}
		if len(x.Events) == 1 && x.Events[0].ID != x.Raised[0].ID {
			t.Errorf("at %s: event %s is explained as %s", c.at, x.Raised[0].ID, x.Events[0].ID)
		}
	}
	if _, err := w.sw.Explain(t.Context(), "h", at(72*time.Minute)); hub.CodeOf(err) != hub.Invalid {
		t.Errorf("the future: %v", err)
	}

	// It is the kept state that a restart reads, and that Explain reads alike.
	w.restart()
	w.reasonIs("h", 72*time.Minute, deadman.ReasonHeard)
	paused := *h
	paused.Lifecycle = hub.Paused
	w.setFleet(&paused)
	w.tick(73 * time.Minute)
	w.reasonIs("h", 200*time.Minute, deadman.ReasonPaused)
	w.setFleet()
	if x := w.reasonIs("h", 200*time.Minute, deadman.ReasonRetired); x.Enrolled {
		t.Error("it is still enrolled")
	}
	if _, err := w.sw.Explain(t.Context(), "nobody", time.Time{}); hub.CodeOf(err) != hub.Invalid || !strings.Contains(err.Error(), "does not know host nobody") {
		t.Errorf("an unknown host: %v", err)
	}
}

func TestExplainTellsOfBlindTime(t *testing.T) {
	w := newWorld(t, &hub.Host{ID: "h", Customer: "acme", Lifecycle: hub.Active})
	dark := []blind.Interval{{From: at(-time.Hour), To: at(0), Cause: blind.ProcessDown}, {From: at(20 * time.Minute), To: at(50 * time.Minute), Cause: blind.SpoolFull}}
	w.timing, w.eyes = deadman.TimingFor(30*time.Minute, time.Minute), eyes{blind.New(dark...)}
	w.restart()
	w.report("h", time.Minute)
	w.tick(2 * time.Minute)
	x := w.reasonIs("h", 59*time.Minute, deadman.ReasonHeard)
	if s := x.Silence; s.Elapsed != 58*time.Minute || s.Unheard != 30*time.Minute || s.Length != 28*time.Minute ||
		len(s.Blind) != 1 || s.Blind[0] != dark[1] || !s.Since.Equal(dark[1].To) || s.Ready != 9*time.Minute || s.Grace != 10*time.Minute {
		t.Errorf("%+v", s)
	}
	if !x.Stale.Equal(at(61 * time.Minute)) {
		t.Errorf("stale at %s", x.Stale)
	}
	// Before it, of an instant in it, and with the grace alone that is missing.
	if x := w.explain("h", at(19*time.Minute)); x.Silence.Unheard != 0 || !x.Stale.Equal(at(31*time.Minute)) {
		t.Errorf("before: %+v", x)
	}
	if x := w.explain("h", at(30*time.Minute)); x.Reason != deadman.ReasonHeld || !strings.Contains(x.HeldBy, "spool_full") {
		t.Errorf("in it: %s %q", x.Reason, x.HeldBy)
	}
	w.fleetOf(hub.Thresholds{StaleAfter: 20 * time.Minute, DownAfter: time.Hour})
	w.reasonIs("h", 59*time.Minute, deadman.ReasonGrace)
}

// Without ClickHouse the hub tells what it knows itself, and of what it is unsure.
func TestExplainWithoutClickHouse(t *testing.T) {
	w := newWorld(t, &hub.Host{ID: "h", Customer: "acme", Lifecycle: hub.Active})
	w.report("h", time.Minute)
	w.tick(2 * time.Minute)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.seen["h"] = hub.Receipt{Position: hub.Position{SpoolID: hub.SpoolID{7}, Seq: 9}, ReceivedAt: at(3 * time.Minute)}
	w.now = at(20 * time.Minute)
	x, err := w.sw.Explain(t.Context(), "h", time.Time{})
	if err != nil || x.Source != "hub" || !x.LastAt.Equal(at(3*time.Minute)) || x.Reason != deadman.ReasonHeard || len(x.Unsure) == 0 {
		t.Errorf("%v: %+v", err, x)
	}
	w.restart() // and now it does not even know what it decided
	if x, err = w.sw.Explain(t.Context(), "h", time.Time{}); err != nil || x.Reason != deadman.ReasonUnknownState || x.State != hub.OK {
		t.Errorf("%v: %s", err, x.Reason)
	}
	w.fleet = nil
	if _, err = w.sw.Explain(t.Context(), "h", time.Time{}); hub.CodeOf(err) != hub.Unavailable {
		t.Errorf("without a fleet: %v", err)
	}
	var told *hub.Error
	if !errors.As(err, &told) || told.Hint == "" {
		t.Error("no hint")
	}
}
