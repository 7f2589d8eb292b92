package simulate

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

var noon = time.Date(2026, 6, 8, 12, 0, 0, 0, time.UTC)

// decode reads a report by the contract's rules and fails on anything that the
// hub would reject.
func decode(t *testing.T, body []byte, at time.Time) *hub.Report {
	t.Helper()
	report, err := wire.DecodeReport(body, at)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	for _, item := range report.Rejected {
		t.Errorf("%s[%d] is rejected: %s: %s", item.Section, item.Position, item.Reason, item.Item)
	}
	return report
}

func TestReportsKeepTheContract(t *testing.T) {
	sections := map[string]int{`"storage_targets":[`: 0, `"backups":[`: 0, `"restore_tests":[`: 0, `"pbs_snapshots":[`: 0, `"audit_tail":[`: 0}
	for host := range 50 {
		id := fmt.Sprintf("acme-%08x", host)
		agent := NewAgent(1, id, 12)
		var body []byte
		for i := range 100 {
			at := noon.Add(time.Duration(i) * 15 * time.Minute)
			body = agent.AppendReport(body[:0], at)
			report := decode(t, body, at)
			if report.HostID != id || !report.ReportedAt.Equal(at) {
				t.Fatalf("report of %s at %v instead of %s at %v", report.HostID, report.ReportedAt, id, at)
			}
			if n := len(report.Guests); n < 10 || n > 14 {
				t.Errorf("%d guests instead of about 12", n)
			}
			if report.CPUPercent == nil || report.MemPercent() == nil || report.DiskPercent() == nil || report.CloudflaredStatus == "" {
				t.Fatalf("something is missing: %s", body)
			}
		}
		for section := range sections {
			if bytes.Contains(body, []byte(section)) {
				sections[section]++
			}
		}
	}
	for section, n := range sections {
		if n == 0 || n == 50 {
			t.Errorf("%d of 50 hosts have %s, want some", n, section)
		}
	}
}

func TestReportsOfAHostMove(t *testing.T) {
	agent := NewAgent(1, "acme-1", 12)
	seen := make(map[string]bool)
	values := make(map[string]map[string]bool)
	note := func(name string, value any) {
		if values[name] == nil {
			values[name] = make(map[string]bool)
		}
		values[name][fmt.Sprint(value)] = true
	}
	for i := range 2000 {
		at := noon.Add(time.Duration(i) * time.Second)
		body := agent.AppendReport(nil, at)
		if seen[string(body)] {
			t.Fatalf("a report was made twice: %s", body)
		}
		seen[string(body)] = true
		report := decode(t, body, at)
		note("cpu", *report.CPUPercent)
		note("memory", *report.MemPercent())
		note("uptime", *report.UptimeSeconds)
		note("load", report.LoadAverage)
		note("guests", len(report.Guests))
		note("running", report.GuestRunning())
		note("cloudflared", report.CloudflaredStatus)
		for _, g := range report.Guests {
			note("guest", g.VMID)
		}
	}
	for name, least := range map[string]int{"cpu": 500, "memory": 500, "uptime": 1900, "load": 300, "guests": 2, "running": 3, "cloudflared": 2, "guest": 13} {
		if len(values[name]) < least {
			t.Errorf("%s took %d values, want at least %d", name, len(values[name]), least)
		}
	}
}

func TestTheSameSeedGivesTheSameReports(t *testing.T) {
	reports := func(seed uint64, host string) []byte {
		agent := NewAgent(seed, host, 5)
		var all []byte
		for i := range 100 {
			all = agent.AppendReport(all, noon.Add(time.Duration(i)*time.Minute))
		}
		return all
	}
	first := reports(1, "acme-1")
	if !bytes.Equal(first, reports(1, "acme-1")) {
		t.Error("the same seed gave other reports")
	}
	if bytes.Equal(first, reports(2, "acme-1")) {
		t.Error("another seed gave the same reports")
	}
	other := bytes.ReplaceAll(reports(1, "acme-2"), []byte("acme-2"), []byte("acme-1"))
	if bytes.Equal(first, other) {
		t.Error("two hosts report the same")
	}
}

func TestSizeOfAReport(t *testing.T) {
	total := 0
	for host := range 200 {
		total += len(NewAgent(1, fmt.Sprintf("acme-%08x", host), 12).AppendReport(nil, noon))
	}
	if mean := total / 200; mean < 2300 || mean > 2900 {
		t.Errorf("reports with 12 guests have %d bytes on average, want about 2,600", mean)
	}
	if report := decode(t, NewAgent(1, "acme-1", 0).AppendReport(nil, noon), noon); len(report.Guests) != 0 {
		t.Errorf("%d guests, want none", len(report.Guests))
	}
}

func BenchmarkAppendReport(b *testing.B) {
	agent := NewAgent(1, "acme-5f2c9a1e", 12)
	var body []byte
	b.ReportAllocs()
	for at := noon; b.Loop(); at = at.Add(time.Second) {
		body = agent.AppendReport(body[:0], at)
	}
	b.SetBytes(int64(len(body)))
}
