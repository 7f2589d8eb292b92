package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
	"felhom.eu/hub/internal/spool"
)

// TestSpoolReplayOnARunningHub goes the whole way of records of a kind that the hub
// does not know: into the file and the table, and, as soon as it can be read, to
// rows, once.
func TestSpoolReplayOnARunningHub(t *testing.T) {
	enginetest.Need(t)
	s := newSite(t)
	s.enroll()
	data := filepath.Join(s.dir, "data")
	leaveUnreadable(t, data)
	h := s.serve()
	eventually(t, "the records are kept", func() bool {
		return strings.Contains(hubOutput(t, "spool", "show", "--config", s.config), "2 rejected records, 2 not replayed")
	})
	eventually(t, "they are shipped", func() bool {
		return strings.Contains(hubOutput(t, "status", "--config", s.config), "every report is in ClickHouse")
	})
	if said := hubFails(t, "spool", "replay", "--all", "--config", s.config); !strings.Contains(said, "2 records still cannot become rows; nothing of this was changed") {
		t.Errorf("%q", said)
	}

	// The newest line about a position counts: what the file has of the first one is
	// as a hub would read it that knows the kind.
	store, err := rejected.Open(filepath.Join(data, "rejected"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := rejected.Read(filepath.Join(data, "rejected"))
	if err != nil || len(kept.Entries) != 2 {
		t.Fatal(kept, err)
	}
	r, err := kept.Entries[0].Load()
	if err != nil {
		t.Fatal(err)
	}
	r.Kind = hub.KindHostReport
	if err := store.Append(r); err != nil {
		t.Fatal(err)
	}
	first := shortPosition(r.Position)

	if said := hubOutput(t, "spool", "replay", first, "--dry-run", "--config", s.config); said != first+"  would be replayed\n1 would be replayed, 0 were in ClickHouse already, 0 cannot become rows" {
		t.Errorf("%q", said)
	}
	s.becomes("SELECT count() FROM host_reports", "0")
	if said := hubOutput(t, "spool", "replay", first, "--config", s.config, "--json"); said != fmt.Sprintf(`{"position":%q,"outcome":"replayed"}`, r.Position.Text()) {
		t.Errorf("%q", said)
	}
	s.becomes("SELECT host_id, customer_id, toUnixTimestamp64Milli(received_at), concat(spool_id, '/', toString(spool_seq)) FROM host_reports FORMAT CSV",
		fmt.Sprintf(`"acme-1","acme",%d,%q`, r.ReceivedAt.UnixMilli(), r.Position.Text()))
	if said := hubOutput(t, "spool", "replay", first, "--config", s.config); !strings.Contains(said, first+"  is in ClickHouse already\n") {
		t.Errorf("again: %q", said)
	}
	if said := hubOutput(t, "spool", "show", "--config", s.config); !strings.Contains(said, "2 rejected records, 1 not replayed") {
		t.Errorf("%s", said)
	}
	if said := hubFails(t, "spool", "replay", "--all", "--config", s.config); !strings.Contains(said, "1 record still cannot become rows") {
		t.Errorf("%q", said)
	}
	s.becomes("SELECT count() FROM host_reports", "1")
	if said := hubOutput(t, "check", "--audit", "--config", s.config); !strings.Contains(said, "0 gaps, 0 doubles") {
		t.Errorf("%s", said)
	}

	// Without the hub everything but the replay works.
	h.end(syscall.SIGTERM)
	if said := hubFails(t, "spool", "replay", "--all", "--config", s.config); !strings.Contains(said, "no hub runs on") {
		t.Errorf("%q", said)
	}
	var out rejected.Record
	if err := json.Unmarshal([]byte(hubOutput(t, "spool", "export", first, "--config", s.config)), &out); err != nil || string(out.Body) != string(r.Body) {
		t.Errorf("%v: %+v", err, out)
	}
}

// leaveUnreadable leaves a spool behind with a report of a later kind and something
// that no hub can read.
func leaveUnreadable(t *testing.T, dataDir string) {
	t.Helper()
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(dataDir, "spool"), MaxBytes: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	report := fmt.Sprintf(`{"host_id":"acme-1","reported_at":%q,"agent_version":"t","host":{},"guests":[{"vmid":101,"status":"running"}]}`, time.Now().UTC().Format(time.RFC3339))
	for _, body := range []string{report, "nothing"} {
		if _, err := sp.Append(context.Background(), spool.Record{Kind: 77, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
}
