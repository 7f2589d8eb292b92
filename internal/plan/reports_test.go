package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/plan"
)

func planFile(t *testing.T, name string) *plan.Plan {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return compare(t, repository(t, archive), "HEAD~1", "HEAD")
}

func warnings(p *plan.Plan) string {
	var b strings.Builder
	for _, w := range p.Warnings {
		b.WriteString(w.Owner + " " + w.Message + "\n")
	}
	return b.String()
}

func TestReportsTellOfKeysInUse(t *testing.T) {
	p := planFile(t, "testdata/keys.txtar")
	used := func(id, key string) clickhouse.LastReport {
		return clickhouse.LastReport{HostID: id, At: now.Add(-3 * time.Minute), KeyID: key, State: "ok"}
	}
	last := map[string]clickhouse.LastReport{}
	for id, key := range map[string]string{"a-rotate": "k1", "a-swap": "k1", "a-finish": "k2", "a-late": "k1", "a-end": "k1", "a-endless": "k1",
		"a-soon": "k1", "a-last": "fleet/k1", "a-retired": "k1", "a-add": "k1", "acme-1": "k1"} {
		last[id] = used(id, key)
	}
	p.AddReports(last, now)
	const ago = " last reported 3 min ago with key k1, which "
	want := []string{
		"host/a-rotate" + ago + "ends 2026-06-22 09:00:00Z: give its agent key k2 before",
		"host/a-swap" + ago + "this removes: it will be refused (401)",
		"host/a-late" + ago + "this removes: it will be refused (401)",
		"host/a-end" + ago + "ends 2027-06-01 00:00:00Z",
		"host/a-soon" + ago + "ends 2026-06-20 00:00:00Z",
		"host/a-retired is retired and reported 3 min ago: its reports will be refused",
	}
	got := warnings(p)
	for _, w := range want {
		if !strings.Contains(got, w+"\n") {
			t.Errorf("no warning %q in\n%s", w, got)
		}
	}
	if n := strings.Count(got, "3 min ago"); n != len(want) {
		t.Errorf("%d warnings, not %d:\n%s", n, len(want), got)
	}
	if n := len(p.Reports); n != len(last)-1 { // acme-1 is not in the plan
		t.Errorf("%d reports", n)
	}
	if !strings.Contains(p.Text(), "a-swap     acme      3 min ago    k1        ok") {
		t.Error(p.Text())
	}
}

func TestReportsTellWhoIsSilentForLonger(t *testing.T) {
	p := planFile(t, "testdata/thresholds.txtar")
	silent := func(d time.Duration) clickhouse.LastReport { return clickhouse.LastReport{At: now.Add(-d)} }
	p.AddReports(map[string]clickhouse.LastReport{
		"acme-1": silent(25 * time.Minute), "acme-2": silent(15 * time.Minute), "acme-3": silent(35 * time.Minute),
		"a-own": silent(11 * time.Minute), "globex-1": silent(3 * time.Hour), "g-quiet": silent(3 * time.Hour),
	}, now)
	got := map[string][]string{}
	for _, c := range p.Thresholds {
		got[c.SetBy] = append(got[c.SetBy], c.AtOnce...)
	}
	if !slices.Equal(got["fleet"], []string{"acme-1 stale (silent for 25 min)"}) || !slices.Equal(got["host/a-own"], []string{"a-own stale (silent for 11 min)"}) ||
		len(got["customer/globex"]) > 0 {
		t.Errorf("got %v", got)
	}
	if text := p.Text(); !strings.Contains(text, "stale 10m earlier; at once: acme-1 stale (silent for 25 min)") {
		t.Error(text)
	}
}

func TestReportsAreHeldAgainstDesired(t *testing.T) {
	p := planFile(t, "testdata/specs.txtar")
	hosts, bodies := p.Asked()
	if !slices.Equal(hosts, []string{"a-drop", "a-spec"}) || !slices.Equal(bodies, []string{"a-spec"}) {
		t.Errorf("asked for %v and %v", hosts, bodies)
	}
	p.AddReports(map[string]clickhouse.LastReport{"a-spec": {At: now, Body: []byte(
		`{"host_id":"a-spec","guests":[{"vmid":101,"memory":2048,"cores":2,"status":"running"},{"vmid":104}],"tags":["b","a"],"same":{"x":1.0},"note":"n"}`)},
		"a-drop": {At: now, Body: []byte("no json")}}, now)
	var got []string
	for _, r := range p.Reports {
		for _, d := range r.Differs {
			got = append(got, r.Host+" "+d.Path+" "+string(d.Desired)+" "+string(d.Reported))
		}
	}
	if want := []string{"a-spec guests[vmid=101].memory 4096 2048", `a-spec note null "n"`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
