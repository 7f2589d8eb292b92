package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/outbox"
)

// TestNotify runs the commands against a real socket; the messages are made up.
func TestNotify(t *testing.T) {
	at := time.Date(2026, 11, 29, 1, 0, 0, 0, time.UTC)
	dead := outbox.Item{MessageID: "m1", Channel: "customer/acme/chat", CustomerID: "acme", Type: hub.HostDown, HostID: "acme-1", Events: 1,
		QueuedAt: at, Attempts: 3, Error: "refused (404)", Dead: true}
	waiting := outbox.Item{MessageID: "m2", Channel: "fleet/ops", Type: "digest", Events: 27, QueuedAt: at}
	unknown := func(name string) error {
		return &hub.Error{Code: hub.Invalid, Reason: "unknown", Message: name + " is unknown", Hint: "hub notify list shows both"}
	}
	file := serveSocket(t, httpapi.Options{Notifications: &httpapi.Notifications{
		List: func(deadOnly bool) any {
			if deadOnly {
				return []outbox.Item{dead}
			}
			return []outbox.Item{dead, waiting}
		},
		Retry: func(target string) (any, error) {
			switch target {
			case "":
				return map[string]int{"retried": 3}, nil
			case "fleet/ops":
				return map[string]int{"retried": 1}, nil
			}
			return nil, unknown(target)
		},
		Test: func(_ context.Context, channel string) (any, error) {
			if channel != "fleet/ops" {
				return nil, unknown(channel)
			}
			return map[string]float64{"seconds": 0.25}, nil
		},
	}})
	for _, c := range []struct{ args, want string }{
		{"list", `CHANNEL             MESSAGE  ABOUT             SINCE                 ATTEMPTS  STATE
customer/acme/chat  m1       host_down acme-1  2026-11-29T01:00:00Z  3         dead: refused (404)
fleet/ops           m2       27 events         2026-11-29T01:00:00Z  0         waits`},
		{"list --dead --json", `[{"message_id":"m1","channel":"customer/acme/chat","customer_id":"acme","type":"host_down","host_id":"acme-1","events":1,"queued_at":"2026-11-29T01:00:00Z","attempts":3,"error":"refused (404)","dead":true}]`},
		{"retry fleet/ops", "dead messages that are sent again: 1"},
		{"retry --all", "dead messages that are sent again: 3"},
		{"retry --all --json", `{"retried":3}`},
		{"test fleet/ops", "fleet/ops took the test message"},
		{"test fleet/ops --json", `{"seconds":0.25}`},
	} {
		args := append(append([]string{"notify"}, strings.Fields(c.args)...), "--config", file)
		if got := hubOutput(t, args...); got != c.want {
			t.Errorf("hub notify %s:\n%s\nwant:\n%s", c.args, got, c.want)
		}
	}
	for _, args := range []string{"retry nobody", "test nobody"} {
		if said := hubFails(t, append(append([]string{"notify"}, strings.Fields(args)...), "--config", file)...); said != "hub: nobody is unknown\n  hub notify list shows both\n" {
			t.Errorf("hub notify %s: %q", args, said)
		}
	}
	for _, args := range []string{"retry", "retry fleet/ops --all", "test", "list more"} {
		cmd := exec.Command(filepath.Join(hubDir(t), "hub"), append(append([]string{"notify"}, strings.Fields(args)...), "--config", file)...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitWrongUse {
			t.Errorf("hub notify %s: exit status %d\n%s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}
