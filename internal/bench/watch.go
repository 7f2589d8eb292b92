package bench

import (
	"context"
	"fmt"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/hub"
)

const (
	watchedHosts = 100_000
	// The hub's own default is a minute: each figure below is of sixty times as
	// many evaluations.
	evaluateEvery = time.Second
)

// watch returns a switch that watches the hosts of a load, all of which it has
// seen: none is silent, and what there is to do is to look.
func watch(ctx context.Context, at *site, db *database, hosts int) (*deadman.Switch, error) {
	// The names are those of hostID.
	sql := fmt.Sprintf(`
INSERT INTO hub.host_last (host_id, last_report_at, spool_id, spool_seq, version)
SELECT concat('c', leftPad(toString(number %% %d), 3, '0'), '-', leftPad(lower(hex(toUInt32(number))), 8, '0')),
    fromUnixTimestamp64Milli(toInt64(%d), 'UTC'), '%s', number, 1 FROM numbers(%d)`, customers, time.Now().UnixMilli(), hub.SpoolID{1}, hosts)
	if _, err := db.engine.Query(ctx, engine.RoleHub, sql); err != nil {
		return nil, fmt.Errorf("make up what the hosts reported: %w", err)
	}
	defaults := config.Default()
	base := hub.Thresholds{StaleAfter: defaults.Monitor.StaleAfter, DownAfter: defaults.Monitor.DownAfter}
	s := deadman.New(deadman.Options{
		Store: db, Backlog: nothingWaits{}, Journal: at.spool, Eyes: open{blind.New()}, LastSeen: at.reports.LastSeen,
		Fleet: func() *hub.Fleet { return at.fleet }, Base: base, Timing: deadman.TimingFor(base.StaleAfter, defaults.Ingest.PollInterval),
		Interval: evaluateEvery, Logger: quiet,
	})
	// The first look writes the state of every host down.
	return s, s.Tick(ctx, time.Now().UTC())
}

// nothingWaits lets the switch judge at any time: how far ClickHouse is behind
// costs nothing to look at.
type nothingWaits struct{}

func (nothingWaits) Behind() (time.Time, bool) { return time.Time{}, false }

// open are eyes that never closed.
type open struct{ log *blind.Log }

func (o open) Log(time.Time) (*blind.Log, error) { return o.log, nil }
func (o open) Blind() []blind.Interval           { return o.log.Intervals() }
