package app

import (
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

// readiness is the detail of /readyz.
type readiness struct {
	Problems   []string         `json:"problems,omitempty"`
	Warnings   []string         `json:"warnings,omitempty"`
	Fleet      fleetDetail      `json:"fleet"`
	Spool      spoolDetail      `json:"spool"`
	ClickHouse clickhouseDetail `json:"clickhouse"`
	Switch     switchDetail     `json:"switch"`
	Messages   messagesDetail   `json:"messages"`
}

type fleetDetail struct {
	Revision  string        `json:"revision"`
	Hosts     int           `json:"hosts"`
	Head      string        `json:"head"`
	Problems  []hub.Problem `json:"problems,omitempty"`
	LastError string        `json:"last_error,omitempty"`
}

type spoolDetail struct {
	UnshippedRecords int64     `json:"unshipped_records"`
	UnshippedBytes   int64     `json:"unshipped_bytes"`
	OldestUnshipped  time.Time `json:"oldest_unshipped,omitzero"`
	DiskBytes        int64     `json:"disk_bytes"`
	MaxBytes         int64     `json:"max_bytes"`
	Damage           int       `json:"damage"`
}

type clickhouseDetail struct {
	Prepared   bool      `json:"prepared"` // it answered since the hub's start, and its schema is the hub's
	ShippedAt  time.Time `json:"shipped_at,omitzero"`
	LastError  string    `json:"last_error,omitempty"`
	Restarts   int64     `json:"engine_restarts"`
	Rechecking bool      `json:"rechecking,omitempty"`    // what it had before it restarted is being looked for
	Restored   uint64    `json:"restored_rows,omitempty"` // that it had lost
}

type switchDetail struct {
	LastJudged time.Time `json:"last_judged,omitzero"`
	HeldBy     string    `json:"held_by,omitempty"`
	HeldSince  time.Time `json:"held_since,omitzero"`
}

type messagesDetail struct {
	Queued  int       `json:"queued"`          // that wait, counted once for each channel
	Oldest  time.Time `json:"oldest,omitzero"` // since when the oldest of these waits
	Dead    int       `json:"dead"`            // that were given up, and are kept for a retry
	Failing int       `json:"failing"`         // channels whose last attempt failed
}

// stalledAfter is longer than a disk that works keeps a report waiting.
const stalledAfter = 10 * time.Second

// ready tells whether a report sent now would be acknowledged.
func (a *App) ready() (bool, any) {
	d := a.readiness()
	return len(d.Problems) == 0, d
}

// readiness lists as problems what makes the hub refuse reports. ClickHouse away
// is a warning: reports wait for it.
func (a *App) readiness() readiness {
	fleet, sp, sh, sw, box := a.roster.Status(), a.spool.Stats(), a.shipper.Status(), a.watch.Status(), a.outbox.Status()
	d := readiness{
		Fleet:      fleetDetail{fleet.Revision, fleet.Hosts, fleet.Head, fleet.Problems, fleet.LastError},
		Spool:      spoolDetail{sp.UnshippedRecords, sp.UnshippedBytes, sp.OldestUnshipped, sp.DiskBytes, sp.MaxBytes, sp.Damage},
		ClickHouse: clickhouseDetail{a.prepared(), sh.ShippedAt, a.databaseError(), a.engineRestarts(), sh.Rechecking, sh.Restored},
		Switch:     switchDetail{sw.LastJudged, sw.HeldBy, sw.HeldSince},
		Messages:   messagesDetail{box.Queued, box.Oldest, box.Dead, box.Failing},
	}
	if a.roster.Current() == nil {
		d.Problems = append(d.Problems, "no fleet is in force")
	}
	if sp.Refusing != "" {
		d.Problems = append(d.Problems, "the spool refuses reports: "+sp.Refusing)
	}
	if waited := a.acceptor.Stalled(); waited > stalledAfter {
		d.Problems = append(d.Problems, "the disk has taken no report for "+waited.Round(time.Second).String()+", and some wait")
	}
	if l := a.acceptor.LockedOut(); l.Broken() {
		d.Warnings = append(d.Warnings, lockedOut(l))
	}
	if w := a.tlsWarning(); w != "" {
		d.Warnings = append(d.Warnings, w)
	}
	if w := a.unreachable(); w != "" {
		d.Warnings = append(d.Warnings, "the hub does not reach its own public address: "+w)
	}
	if a.feeder != nil && a.feeder.Status().LastError != "" {
		d.Warnings = append(d.Warnings, "the outside watchdog is not fed: "+a.feeder.Status().LastError)
	}
	for _, w := range []struct {
		is   bool
		text string
	}{
		{fleet.Waiting(), "the fleet repository's head is " + string(fleet.Verdict.Verdict) + "; the last good commit is in force"},
		{fleet.LastError != "" && !fleet.Waiting(), "the last pull of the fleet repository failed"},
		{fleet.BadHosts > 0, "files of hosts have mistakes; these hosts keep their last good record, if they have one"},
		{fleet.Frozen != "", "the fleet is frozen: " + fleet.Frozen},
		{d.ClickHouse.LastError != "", "ClickHouse does not take reports; they wait in the spool"},
		{sh.Restored > 0, "ClickHouse had lost rows when it restarted; they were brought back from the spool"},
		{sw.HeldBy != "", "the dead-man's switch is held back"},
		{box.Dead > 0, "messages were given up; hub notify list --dead shows them, and hub notify retry sends them again"},
		{sh.Unkept > 0, "records that cannot become rows were not all written to their file; rejected_reports has them"},
		{sp.Damage > 0, "the spool was damaged: acknowledged records are lost"},
	} {
		if w.is {
			d.Warnings = append(d.Warnings, w.text)
		}
	}
	return d
}

// databaseError says why ClickHouse takes nothing; empty when it does.
func (a *App) databaseError() string {
	if text := a.dbProblem.Load(); text != nil && *text != "" {
		return *text
	}
	return a.shipper.Status().LastError
}

// prepared reports whether ClickHouse has answered and has the hub's schema.
func (a *App) prepared() bool {
	text := a.dbProblem.Load()
	return text != nil && *text == ""
}

func (a *App) engineRestarts() int64 {
	if a.engine == nil {
		return 0
	}
	return a.engine.Restarts()
}

// metrics are the numbers of all parts, for /metrics.
func (a *App) metrics(version string) []httpapi.Metric {
	gauge := func(name, help string, value func() float64) httpapi.Metric {
		return httpapi.Metric{Name: name, Help: help, Value: value}
	}
	counter := func(name, help string, value func() float64) httpapi.Metric {
		return httpapi.Metric{Name: name, Help: help, Value: value, Counter: true}
	}
	list := []httpapi.Metric{
		{Name: "hub_info", Help: "Always 1; the label tells the version.", Labels: map[string]string{"version": version}, Value: func() float64 { return 1 }},
		counter("hub_rejected_items_total", "Parts of accepted reports that were left out.", func() float64 { return float64(a.shipper.Status().LeftOut) }),

		gauge("hub_spool_unshipped_records", "Acknowledged records that ClickHouse does not have yet.", func() float64 { return float64(a.spool.Stats().UnshippedRecords) }),
		gauge("hub_spool_unshipped_bytes", "Bytes of volumes behind the cursor.", func() float64 { return float64(a.spool.Stats().UnshippedBytes) }),
		gauge("hub_spool_oldest_unshipped_seconds", "Age of the oldest record that ClickHouse does not have yet, in seconds.", func() float64 { return age(a.now(), a.spool.Stats().OldestUnshipped) }),
		gauge("hub_spool_disk_bytes", "Disk space that the spool takes.", func() float64 { return float64(a.spool.Stats().DiskBytes) }),
		gauge("hub_spool_max_bytes", "Disk space that the spool may take.", func() float64 { return float64(a.spool.Stats().MaxBytes) }),
		gauge("hub_spool_damaged_ranges", "Damaged ranges found since the start.", func() float64 { return float64(a.spool.Stats().Damage) }),

		counter("hub_ship_records_total", "Records brought to ClickHouse.", func() float64 { return float64(a.shipper.Status().Shipped) }),
		counter("hub_ship_cuts_total", "Cuts brought to ClickHouse.", func() float64 { return float64(a.shipper.Status().Cuts) }),
		counter("hub_ship_failures_total", "Attempts to send that failed.", func() float64 { return float64(a.shipper.Status().Failures) }),
		counter("hub_ship_doubts_total", "Blocks whose outcome had to be looked up.", func() float64 { return float64(a.shipper.Status().Doubts) }),
		counter("hub_ship_resent_total", "Blocks sent again because they were missing.", func() float64 { return float64(a.shipper.Status().Resent) }),
		counter("hub_ship_doubled_total", "Blocks found more than once; an alarm.", func() float64 { return float64(a.shipper.Status().Doubled) }),
		counter("hub_rejected_records_total", "Acknowledged records that cannot become rows; hub spool show lists them.", func() float64 { return float64(a.shipper.Status().Rejected) }),
		counter("hub_rejected_unkept_total", "Of those, the ones that are in rejected_reports only, because their file could not be written; an alarm.", func() float64 { return float64(a.shipper.Status().Unkept) }),
		counter("hub_replayed_records_total", "Rejected records that have become rows after all.", func() float64 { return float64(a.shipper.Status().Replayed) }),
		counter("hub_ship_restored_rows_total", "Rows that ClickHouse had lost at a restart and that were brought back; an alarm.", func() float64 { return float64(a.shipper.Status().Restored) }),
		gauge("hub_ship_rechecking", "1 while it is not known whether ClickHouse still has what was shipped.", func() float64 { return truth(a.shipper.Status().Rechecking) }),
		counter("hub_engine_restarts_total", "Restarts of the embedded ClickHouse.", func() float64 { return float64(a.engineRestarts()) }),

		gauge("hub_fleet_hosts", "Enrolled hosts in force, without retired ones.", func() float64 { return float64(a.roster.Status().Hosts) }),
		gauge("hub_fleet_problems", "Mistakes for which the fleet repository's head is rejected.", func() float64 { return float64(len(a.roster.Status().Problems)) }),
		gauge("hub_fleet_bad_hosts", "Hosts whose file has mistakes; they keep their last good record, if they have one.", func() float64 { return float64(a.roster.Status().BadHosts) }),
		gauge("hub_fleet_head_waiting", "1 while the fleet repository's head is held or rejected.", func() float64 { return truth(a.roster.Status().Waiting()) }),
		gauge("hub_fleet_frozen", "1 while the fleet repository does not answer, or does not move for longer than fleet.max_age.", func() float64 { return truth(a.roster.Status().Frozen != "") }),
		gauge("hub_fleet_pull_age_seconds", "Time since the fleet repository last answered, in seconds.", func() float64 { return age(a.now(), a.roster.Status().CheckedAt) }),

		gauge("hub_switch_held", "1 while the switch is held back.", func() float64 { return truth(a.watch.Status().HeldBy != "") }),
		gauge("hub_switch_held_seconds", "Time since the switch is held back, in seconds; 0 while it judges.", func() float64 { return age(a.now(), a.watch.Status().HeldSince) }),
		gauge("hub_switch_kept_back", "Silent hosts that are not told of yet, because the whole fleet fell silent.", func() float64 { return float64(a.watch.Status().KeptBack) }),
		counter("hub_switch_failed_total", "Times that a host could not be judged; the others were.", func() float64 { return float64(a.watch.Status().Failed) }),
		counter("hub_switch_evaluations_total", "Evaluations that judged.", func() float64 { return float64(a.watch.Status().Evaluated) }),
		counter("hub_switch_held_total", "Evaluations that were held back.", func() float64 { return float64(a.watch.Status().Held) }),
	}
	for _, t := range hub.SwitchEvents() {
		list = append(list, httpapi.Metric{Name: "hub_events_total", Help: "Events that the switch raised.", Counter: true,
			Labels: map[string]string{"type": string(t)}, Value: func() float64 { return float64(a.watch.Status().Events[t]) }})
	}
	return list
}

// age returns the seconds from t to now, 0 for the zero time.
func age(now, t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return now.Sub(t).Seconds()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
