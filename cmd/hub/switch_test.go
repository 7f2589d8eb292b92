package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
)

// TestExplainOfARunningHub asks a real hub, which was away for a while, by the
// command.
func TestExplainOfARunningHub(t *testing.T) {
	enginetest.Need(t)
	s := newSite(t)
	t.Setenv("HUB_MONITOR_INTERVAL", "500ms")
	file := filepath.Join(s.clone, "fleet", "fleet.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "staleAfter: 30m, downAfter: 60m", "staleAfter: 2s, downAfter: 1h", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	hostID, key := s.enroll()
	h := s.serve()
	eventually(t, "a host that never reported", func() bool {
		said := hubOutput(t, "switch", "explain", hostID, "--config", s.config)
		return strings.Contains(said, "last report none\n") && strings.Contains(said, "raise nothing: never_reported\n")
	})
	if status := h.report(hostID, key); status != http.StatusOK {
		t.Fatal(status)
	}
	explain := func(more ...string) (x explainView) {
		t.Helper()
		line := hubOutput(t, append([]string{"switch", "explain", hostID, "--config", s.config, "--json"}, more...)...)
		if err := json.Unmarshal([]byte(line), &x); err != nil || strings.Contains(line, "\n") {
			t.Fatalf("%v: %s", err, line)
		}
		return x
	}
	// The first look is silent, whatever it finds; the next silence is told.
	eventually(t, "the first look", func() bool { return explain().Recorded != nil })
	body := fmt.Sprintf(`{"host_id":%q,"reported_at":"2027-06-01T09:00:00Z","agent_version":"t","host":{}}`, hostID)
	if status := h.send(key, body); status != http.StatusOK {
		t.Fatal(status)
	}
	eventually(t, "the event", func() bool { return len(explain().Raised) == 1 })
	x := explain()
	if x.Decision.Reason != "told_before" || x.Recorded == nil || x.Recorded.State != "stale" || x.LastReport == nil || len(x.Unsure) > 0 {
		t.Errorf("%+v", x)
	}
	shown := hubOutput(t, "switch", "explain", hostID, "--config", s.config)
	for _, want := range []string{"host        " + hostID + " of acme, active\n", "silence     ", "thresholds  stale after 2s, down after 1h0m0s\n",
		"by these figures the host is stale since ", "raise nothing: told_before\n", "raised      host_stale at ", "id " + x.Raised[0].ID} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
	// At the instant that found it, it is found.
	then := explain("--at", exactly(x.Raised[0].DetectedAt))
	if len(then.Decision.Events) != 1 || then.Decision.Events[0].ID != x.Raised[0].ID || then.Decision.Reason != "silence_reached_stale_after" {
		t.Errorf("then: %+v", then.Decision)
	}
	if before := explain("--at", "-1h"); before.LastReport != nil || before.Decision.HeldBy != "the hub could not accept reports then: process_down" || len(before.Raised) != 0 {
		t.Errorf("an hour ago: %+v", before)
	}
	if said := hubFails(t, "switch", "explain", "nobody", "--config", s.config); !strings.HasPrefix(said, "hub: the fleet in force does not know host nobody, and nothing is kept of it\n  ") {
		t.Errorf("an unknown host: %q", said)
	}
	if said := hubFails(t, "switch", "explain", hostID, "--config", s.config, "--at", exactly(time.Now().Add(time.Hour))); !strings.Contains(said, "has not come yet") {
		t.Errorf("the future: %q", said)
	}
	h.end(syscall.SIGTERM)
	if said := hubFails(t, "switch", "explain", hostID, "--config", s.config); !strings.Contains(said, "no hub runs on") {
		t.Errorf("without a hub: %q", said)
	}
}

func TestInstant(t *testing.T) {
	now := time.Date(2027, 6, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2027-06-01T09:00:00Z": "2027-06-01T09:00:00.000Z", "2027-06-01T11:00:00.25+02:00": "2027-06-01T09:00:00.250Z",
		"-2h": "2027-06-01T10:00:00.000Z", "-1d": "2027-05-31T12:00:00.000Z", "-90m": "2027-06-01T10:30:00.000Z",
	} {
		if got, err := instant(text, now); err != nil || exactly(got) != want {
			t.Errorf("%s: %s, %v; want %s", text, exactly(got), err, want)
		}
	}
	for _, text := range []string{"", "2h", "--2h", "yesterday", "2027-06-01", "-"} {
		if got, err := instant(text, now); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}

func TestExplainText(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"held by the grace", `{
			"host_id": "acme-1", "customer_id": "acme", "site": "berlin", "enrolled": true, "lifecycle": "active", "at": "2027-06-01T09:59:00Z",
			"stale_after_seconds": 1800, "down_after_seconds": 3600,
			"last_report": {"at": "2027-06-01T09:00:00Z", "position": "00ff/7", "source": "hub"},
			"silence": {"elapsed_seconds": 3540, "blind_seconds": 1200.5, "observed_seconds": 2339.5, "grace_seconds": 600, "back_since": "2027-06-01T09:50:00Z", "ready_since_seconds": 540,
				"blind": [{"from": "2027-06-01T09:29:59.5Z", "to": "2027-06-01T09:50:00Z", "cause": "process_down"}]},
			"rule": {"state": "ok", "since": "2027-06-01T09:00:00Z", "stale_at": "2027-06-01T10:00:00Z", "down_at": "2027-06-01T10:20:00.5Z"},
			"decision": {"reason": "grace_not_over", "events": []},
			"recorded": {"state": "ok", "since": "2027-06-01T08:00:00Z", "decided_at": "2027-06-01T08:00:10Z", "lifecycle": "active", "episode": "00ff/1", "episode_at": "2027-06-01T08:00:00Z"},
			"raised": []}`,
			`host        acme-1 of acme, site berlin, active
judged at   2027-06-01T09:59:00.000Z
last report received 2027-06-01T09:00:00.000Z, by the hub's own index
            record 00ff/7
silence     38m59.5s counts: 59m0s since the last report, less 20m0.5s in which the hub could not have heard
            blind from 2027-06-01T09:29:59.500Z to 2027-06-01T09:50:00.000Z, 20m0.5s: process_down
grace       10m0s after a long outage of the hub; it is back since 2027-06-01T09:50:00.000Z and was ready for 9m0s
thresholds  stale after 30m0s, down after 1h0m0s
verdict     by these figures the host is ok
            if nothing comes and the hub stays ready: stale at 2027-06-01T10:00:00.000Z
            if nothing comes and the hub stays ready: down at 2027-06-01T10:20:00.500Z
recorded    ok since 2027-06-01T08:00:00.000Z, decided at 2027-06-01T08:00:10.000Z
            newest report looked at: 2027-06-01T08:00:00.000Z, record 00ff/1
decision    raise nothing: grace_not_over
            the silence is long enough, but hosts still have their grace to report
raised      no event of the host is in ClickHouse until then
`},
		{"down and folded, of a hub that is not sure", `{
			"host_id": "acme-1", "customer_id": "acme", "enrolled": true, "lifecycle": "active", "at": "2027-06-01T11:00:00Z", "stale_after_seconds": 1800, "down_after_seconds": 3600,
			"last_report": {"at": "2027-06-01T10:00:00Z", "position": "00ff/7", "source": "clickhouse"},
			"silence": {"elapsed_seconds": 3600, "blind_seconds": 0, "observed_seconds": 3600, "grace_seconds": 600, "blind": []},
			"rule": {"state": "down", "since": "2027-06-01T11:00:00Z", "stale_at": "2027-06-01T10:30:00Z", "down_at": "2027-06-01T11:00:00Z"},
			"decision": {"reason": "silence_reached_down_after", "state": "down", "events": [{"event_id": "d0", "type": "host_down", "at": "2027-06-01T11:00:00Z", "reason": "silence_reached_down_after: last=x"}]},
			"recorded": {"state": "stale", "since": "2027-06-01T10:30:00Z", "decided_at": "2027-06-01T10:30:10Z", "episode": "00ff/7", "episode_at": "2027-06-01T10:00:00Z", "folded_into": "a5"},
			"raised": [{"event_id": "s0", "type": "host_stale", "at": "2027-06-01T10:30:00Z", "detected_at": "2027-06-01T10:30:10Z", "reason": "why", "folded_into": "a5"}],
			"unsure": ["ClickHouse\u001b[2J is behind"]}`,
			`host        acme-1 of acme, active
judged at   2027-06-01T11:00:00.000Z
last report received 2027-06-01T10:00:00.000Z, ClickHouse has it
            record 00ff/7
silence     1h0m0s counts: 1h0m0s since the last report, less 0s in which the hub could not have heard
grace       10m0s; not needed, the hub was not away for long in this silence
thresholds  stale after 30m0s, down after 1h0m0s
verdict     by these figures the host is down since 2027-06-01T11:00:00.000Z
recorded    stale since 2027-06-01T10:30:00.000Z, decided at 2027-06-01T10:30:10.000Z
            episode: silent after 2027-06-01T10:00:00.000Z, record 00ff/7
            part of the mass_silence a5
decision    raise host_down, which holds since 2027-06-01T11:00:00.000Z
            id d0, silence_reached_down_after: last=x
raised      host_stale at 2027-06-01T10:30:00.000Z, found at 2027-06-01T10:30:10.000Z
            id s0, why, folded into a5
unsure      ClickHouse[2J is behind
`},
		{"a controller in maintenance, with deadlines", `{"host_id": "acme-1/101", "customer_id": "acme", "enrolled": true, "lifecycle": "active", "at": "2027-06-01T09:59:00Z",
			"stale_after_seconds": 1800, "down_after_seconds": 3600, "last_report": {"at": "2027-06-01T09:00:00Z", "position": "00ff/1", "source": "hub"},
			"silence": {"elapsed_seconds": 3540, "blind": [], "observed_seconds": 3540, "grace_seconds": 600},
			"rule": {"state": "stale", "since": "2027-06-01T09:30:00Z", "down_at": "2027-06-01T10:00:00Z"}, "decision": {"reason": "muted", "events": []},
			"recorded": {"state": "stale", "since": "2027-06-01T09:30:00Z", "decided_at": "2027-06-01T09:30:30Z", "silent": true, "muted_by": "maintenance fleet/patch-night"},
			"host": {"last_report_at": "2027-06-01T09:50:00Z", "state": "ok"}, "muted_by": "maintenance fleet/patch-night", "muted_until": "2027-06-01T12:00:00Z",
			"deadlines": [
				{"guest_id": "acme-1/101", "deadline": "backup", "limit_seconds": 93600, "last_at": "2027-05-31T01:07:31Z", "due_at": "2027-06-01T03:07:31Z", "overdue": true, "reason": "overdue"},
				{"guest_id": "acme-1/101", "deadline": "restore_test", "limit_seconds": 0, "last_at": "2027-05-31T01:07:31Z", "reason": "no_deadline"}],
			"raised": [{"event_id": "e0", "type": "backup_overdue", "guest_id": "acme-1/101", "at": "2027-06-01T03:07:31Z", "detected_at": "2027-06-01T03:10:00Z", "reason": "why", "caused_by": "d0"}]}`,
			`controller  acme-1/101 of acme, active
judged at   2027-06-01T09:59:00.000Z
last report received 2027-06-01T09:00:00.000Z, by the hub's own index
            record 00ff/1
silence     59m0s counts: 59m0s since the last report, less 0s in which the hub could not have heard
grace       10m0s; not needed, the hub was not away for long in this silence
thresholds  stale after 30m0s, down after 1h0m0s
verdict     by these figures the controller is stale since 2027-06-01T09:30:00.000Z
            if nothing comes and the hub stays ready: down at 2027-06-01T10:00:00.000Z
recorded    stale since 2027-06-01T09:30:00.000Z, decided at 2027-06-01T09:30:30.000Z
            not told because of maintenance fleet/patch-night
its host    ok, last report received 2027-06-01T09:50:00.000Z
muted       by maintenance fleet/patch-night, until 2027-06-01T12:00:00.000Z
deadlines   acme-1/101 backup within 26h0m0s: last 2027-05-31T01:07:31.000Z, due 2027-06-01T03:07:31.000Z: overdue (it was told of before)
decision    raise nothing: muted
            it is recorded, and told when what mutes it is over, if it still is so then
raised      backup_overdue at 2027-06-01T03:07:31.000Z, found at 2027-06-01T03:10:00.000Z
            id e0, why, caused by d0
`},
		{"gone, and held", `{"host_id": "acme-1", "enrolled": false, "lifecycle": "retired", "at": "2027-06-01T11:00:00Z", "enroll_by": "2027-06-01T12:00:00Z",
			"rule": {}, "decision": {"reason": "held_back", "held_by": "no answer", "events": []}, "raised": []}`,
			`host        acme-1, not in the fleet in force
judged at   2027-06-01T11:00:00.000Z
last report none; the first is due by 2027-06-01T12:00:00.000Z (enrollBy)
recorded    nothing is recorded of the host until then
decision    raise nothing: held_back
            the switch does not judge
            no answer
raised      no event of the host is in ClickHouse until then
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var x explainView
			if err := json.Unmarshal([]byte(c.answer), &x); err != nil {
				t.Fatal(err)
			}
			if got := x.text(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
