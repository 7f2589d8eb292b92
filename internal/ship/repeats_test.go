package ship

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/simulate"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

func reportOf(t testing.TB, seq uint64, host string, body []byte) entry {
	t.Helper()
	e := decode(spool.Entry{
		Record:  spool.Record{Kind: hub.KindHostReport, HostID: host, Body: body},
		Receipt: hub.Receipt{Position: hub.Position{Seq: seq}, ReceivedAt: time.Now().UTC()},
	})
	if e.lists == nil {
		t.Fatal(e.reason)
	}
	return e
}

// Any change of an element, however small, is a change of its list and of no other.
func TestDigestsTellListsApart(t *testing.T) {
	const list = `"guests":[{"vmid":1},{"vmid":2}],"backups":[{"vmid":1,"target":"a","status":"ok","started_at":"2026-06-08T01:00:00Z","size_bytes":7}],` +
		`"restore_tests":[{"vmid":1,"tested_at":"2026-06-08T02:00:00Z","status":"ok","duration_seconds":1.5}],` +
		`"pbs_snapshots":[{"vmid":1,"datastore":"d","taken_at":"2026-06-08T03:00:00Z","verified":false}],"audit_tail":[{"at":"2026-06-08T04:00:00Z","actor":"x","action":"y","detail":"z"}]`
	of := func(list string) digests {
		return reportOf(t, 1, "acme-1", fmt.Appendf(nil, `{"host_id":"acme-1","reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{},%s}`, list)).lists.digests
	}
	for change, section := range map[string]clickhouse.Section{
		`{"vmid":2}>{"vmid":3}`: clickhouse.GuestsSection, `"target":"a"|"target":"b"`: clickhouse.BackupsSection, `"size_bytes":7>"size_bytes":8`: clickhouse.BackupsSection,
		`T01:00:00Z>T01:00:00.001Z`: clickhouse.BackupsSection, `1.5>1.25`: clickhouse.RestoreTestsSection, `T02:>T22:`: clickhouse.RestoreTestsSection,
		`false>true`: clickhouse.PBSSnapshotsSection, `"d"|"e"`: clickhouse.PBSSnapshotsSection, `"x","action":"y">"xy","action":""`: clickhouse.AuditSection,
	} {
		from, to, _ := strings.Cut(strings.ReplaceAll(change, "|", ">"), ">")
		before, after := of(list), of(strings.Replace(list, from, to, 1))
		for s := range clickhouse.Sections {
			if (before[s] != after[s]) != (s == section) {
				t.Errorf("%s: section %d: %x, %x", change, s, before[s], after[s])
			}
		}
	}
	if of(`"backups":[]`) != (digests{}) {
		t.Error("empty lists have digests")
	}
}

// What is known stays bounded, and a run of the server that is over notes nothing.
func TestRepeatsAreBoundedAndForgotten(t *testing.T) {
	var r repeats
	old := r.news()
	n := r.news()
	for i := range maxRemembered + 10 {
		n.of[fmt.Sprint(i)] = digests{1}
	}
	r.note(n)
	if len(r.delivered) != maxRemembered {
		t.Errorf("%d hosts are known", len(r.delivered))
	}
	r.forget()
	old.of["acme-1"] = digests{1}
	if r.note(old); len(r.delivered) != 0 {
		t.Error("what an earlier run of the server got is taken for there")
	}
}

// BenchmarkUnchangedLists is what a report of 12 guests costs whose lists are those of
// the report before.
func BenchmarkUnchangedLists(b *testing.B) {
	agent := simulate.NewAgent(3, "acme-1", 12)
	e := reportOf(b, 1, "acme-1", agent.AppendReport(nil, time.Now()))
	report, err := wire.DecodeReport(e.Body, e.ReceivedAt)
	if err != nil {
		b.Fatal(err)
	}
	var r repeats
	var batch clickhouse.Batch
	ahead := &clickhouse.Ahead{}
	n := r.news()
	n.add(&e, &batch, ahead)
	r.note(n)
	n = r.news()
	b.ReportAllocs()
	for b.Loop() {
		e.lists.digests = digestsOf(report)
		if n.add(&e, &batch, ahead) != nil {
			b.Fatal("something is new")
		}
	}
}
