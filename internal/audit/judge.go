package audit

import "felhom.eu/hub/internal/clickhouse"

// found is what ClickHouse has of a range, by table and sequence number.
type found struct {
	tables                       map[string]map[uint64]clickhouse.Tally
	noBodies, noGuests, noEvents bool // dropped by retention: not judged
}

// verdict names the table in which something of a record is missing, and the
// one in which something is twice; empty: none.
type verdict struct{ gap, double string }

func (f found) in(table string, seq uint64) clickhouse.Tally { return f.tables[table][seq] }

// any reports whether some table has something of a record.
func (f found) any(seq uint64) bool {
	for _, tallies := range f.tables {
		if tallies[seq].Rows > 0 {
			return true
		}
	}
	return false
}

// reportTables are where the rows of one kind of reports are.
type reportTables struct{ reports, bodies, parts string }

var (
	ofHosts       = reportTables{"host_reports", "host_report_bodies", "guest_reports"}
	ofControllers = reportTables{"controller_reports", "controller_report_bodies", "controller_apps"}
)

// judge compares what is there of a record with what it must have; w is nil for
// a host's report. Whatever the record is, it may stand in rejected_reports, with the rows
// that other tables took of it and without those that they did not.
func (f found) judge(seq uint64, w *want) verdict {
	switch w {
	case nil:
		return f.judgeReport(seq, ofHosts)
	case controllerReport:
		return f.judgeReport(seq, ofControllers)
	}
	rejected := f.in("rejected_reports", seq).Rows
	if (*w)["rejected_reports"] > 0 && rejected == 0 && f.any(seq) {
		return f.judgeAlone(seq) // a newer hub could read it, and replayed it
	}
	var v verdict
	for _, table := range clickhouse.Counted() {
		t, n := f.in(table, seq), (*w)[table]
		if table == "rejected_reports" || table == "events" && f.noEvents {
			continue
		}
		if t.Rows < n && rejected == 0 {
			v.gap = table
		}
		if t.Rows > n || t.Again > 0 {
			v.double = table
		}
	}
	if (*w)["rejected_reports"] > 0 && rejected == 0 {
		v.gap = "rejected_reports"
	}
	if rejected > 1 {
		v.double = "rejected_reports"
	}
	return v
}

func (f found) judgeReport(seq uint64, of reportTables) (v verdict) {
	report, rejected := f.in(of.reports, seq), f.in("rejected_reports", seq)
	switch {
	case report.Rows > 1:
		v.double = of.reports
	case rejected.Rows > 1:
		v.double = "rejected_reports"
	}
	if report.Rows == 0 {
		if rejected.Rows == 0 {
			v.gap = of.reports
		}
		return v
	}
	check := func(table string, n uint64) {
		t := f.in(table, seq)
		if t.Rows < n && v.gap == "" && rejected.Rows == 0 {
			v.gap = table
		}
		if (t.Rows > n || t.Again > 0) && v.double == "" {
			v.double = table
		}
	}
	if !f.noBodies {
		check(of.bodies, 1)
	}
	if !f.noGuests {
		check(of.parts, report.Parts)
		check("storage_target_reports", report.Targets)
	}
	check("rejected_items", report.Items)
	return v
}

// judgeAlone judges a record of which something is there, and which the spool
// has no more.
func (f found) judgeAlone(seq uint64) verdict {
	for _, of := range []reportTables{ofHosts, ofControllers} {
		if f.in(of.reports, seq).Rows > 0 {
			return f.judgeReport(seq, of)
		}
	}
	for _, table := range clickhouse.Counted() {
		if f.in(table, seq).Again > 0 {
			return verdict{double: table}
		}
	}
	return verdict{}
}
