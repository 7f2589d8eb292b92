package app_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// A commit replaces the keys of the whole fleet, and no host has the new ones: that
// is the hub's blindness, over a restart too, and ends with the commit that brings
// them back.
func TestLostKeysAreBlindTime(t *testing.T) {
	s := newSite(t)
	s.cfg.Monitor.StaleAfter, s.cfg.Monitor.DownAfter = time.Minute, 2*time.Minute
	hosts := map[string]hub.Secret{}
	for _, id := range []string{"acme-1", "acme-2", "acme-3", "acme-4"} {
		hosts[id] = s.enrollAs("acme", id, nil)
	}
	s.push("hosts")
	r := s.startReady()
	n := 0
	knock := func(want int) {
		t.Helper()
		n++
		for id, key := range hosts {
			if status := r.report(id, key, n); status != want {
				t.Fatalf("%s: %d, want %d", id, status, want)
			}
		}
	}
	knock(http.StatusOK)
	r.becomes("SELECT count() FROM switch_state", "4")

	for id := range hosts {
		s.enrollAs("acme", id, nil)
	}
	lost := s.push("keys that no host has")
	inForce := func(commit string) {
		r.Reload()
		r.eventually(commit+" in force", func() bool { return r.fleetStatus().Revision == commit })
	}
	inForce(lost)
	blind := func() bool {
		_, body := r.get("/readyz")
		return strings.Contains(body, "4 of 4 hosts are refused the keys that were theirs until") && strings.Contains(body, "the hub accepts no reports since")
	}
	knock(http.StatusUnauthorized)
	r.eventually("the hub knows that it is blind", blind)
	if _, body := r.get("/metrics"); !strings.Contains(body, "hub_locked_out_hosts 4") {
		t.Error("the metric does not tell")
	}
	r.stop()
	r = s.startReady()
	knock(http.StatusUnauthorized)
	r.eventually("the restarted hub knows it", blind)
	time.Sleep(1500 * time.Millisecond) // longer than a gap, that of a stale_after of 1 min

	s.git(s.clone, "revert", "--no-edit", "HEAD")
	s.git(s.clone, "push", "-q", "origin", "HEAD:main")
	inForce(s.git(s.clone, "rev-parse", "HEAD"))
	knock(http.StatusOK)
	r.eventually("it judges again", func() bool { _, body := r.get("/readyz"); return !strings.Contains(body, "held_by") })
	r.becomes("SELECT count() > 0 FROM hub_blind WHERE cause = 'auth_broken' AND to_at > from_at + 1", "1")
	r.becomes("SELECT count() FROM events WHERE host_id != ''", "0")
}
