package clickhouse_test

import (
	"os"
	"strings"
	"testing"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

// Each query of the README finds something when the contract's full report is there.
func TestReadmeQueries(t *testing.T) {
	db, conn := open(t)
	body, err := os.ReadFile("../../testdata/host-report.full.json")
	if err != nil {
		t.Fatal(err)
	}
	r := report(1, epoch, "")
	if r.Report, err = wire.DecodeReport(body, epoch); err != nil {
		t.Fatal(err)
	}
	f := fleet(t, &hub.Host{ID: r.Report.HostID, Customer: "acme", Lifecycle: hub.Active})
	if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "a", r)
	insertSections(t, db, &clickhouse.Ahead{}, r)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```sql\n")
	block, _, _ = strings.Cut(block, "```")
	queries := strings.Split(strings.TrimSuffix(strings.TrimSpace(block), ";"), ";\n")
	if len(queries) < 6 {
		t.Fatalf("the README has %d queries", len(queries))
	}
	for _, sql := range queries {
		_, sql, _ = strings.Cut(sql, "\n") // its comment
		if n := one[uint64](t, conn, "SELECT count() FROM ("+sql+")"); n == 0 {
			t.Errorf("finds nothing: %s", sql)
		}
	}
}
