package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// makeSpool makes a data_dir with a spool of three records, one shipped.
func makeSpool(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), MaxBytes: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"acme-1", "acme-2", "acme-2"} {
		if _, err := s.Append(context.Background(), spool.Record{Kind: hub.KindHostReport, HostID: host, CustomerID: "acme", KeyID: "key-name", Body: []byte("the-body")}); err != nil {
			t.Fatal(err)
		}
	}
	r := s.Reader(spool.Cursor{})
	e, _, err := r.Next()
	if err == nil {
		err = s.Advance(e.End)
	}
	_ = r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func runHub(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command("hub", args...)
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func TestSpoolVerify(t *testing.T) {
	dir := makeSpool(t)
	out, status := runHub(t, "spool", "verify", dir, "--records")
	for _, want := range []string{"000000000001.vol", "seq 1–3", "closed, waiting", "cursor   volume 1, next record 2", "3 records of 2 hosts, 2 waiting", "host_report       3", "acme-2  2"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("status %d, want %q in\n%s", status, want, out)
		}
	}
	if strings.Contains(out, "the-body") || strings.Contains(out, "key-name") {
		t.Errorf("a body or a key is printed:\n%s", out)
	}

	volume := filepath.Join(dir, "spool", "000000000001.vol")
	data, err := os.ReadFile(volume)
	if err != nil {
		t.Fatal(err)
	}
	data[128+60] ^= 1 // in the first record
	if err := os.WriteFile(volume, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, status = runHub(t, "spool", "verify", filepath.Join(dir, "spool"))
	if status != 1 || !strings.Contains(out, "DAMAGED  000000000001.vol: bytes 128–") || !strings.Contains(out, "sequence numbers 1–1 are missing") {
		t.Errorf("status %d:\n%s", status, out)
	}
	out, status = runHub(t, "spool", "verify", dir, "--json")
	first, _, _ := strings.Cut(out, "\n")
	var v verification
	if err := json.Unmarshal([]byte(first), &v); err != nil || status != 1 || len(v.Damage) != 1 || v.Damage[0].Last != 1 || v.Records != 2 {
		t.Errorf("status %d, error %v:\n%s", status, err, out)
	}
}
