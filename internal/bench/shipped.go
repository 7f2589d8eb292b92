package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
)

// run is a scenario with the engine: what waits in the spool before, and what
// comes in meanwhile.
type run struct {
	scenario, what string
	backlog        int
	load           Load
	noLoad         bool
	untilBacklog   bool // the load ends when the backlog is in ClickHouse
	switched       bool // the switch evaluates all hosts meanwhile
	furnished      bool // there is something to read
}

// Defaults of the scenarios with the engine.
const (
	fastRate, slowRate = 2000, 1000
	manyConnections    = 2000
	defaultBacklog     = 50_000
	longTime           = time.Minute
	middleTime         = 30 * time.Second
	forEver            = 24 * time.Hour
)

func (b *bench) runs() []run {
	at := func(otherwise float64) float64 {
		if b.o.Rate > 0 {
			return b.o.Rate
		}
		return otherwise
	}
	waiting := b.o.Backlog
	if waiting == 0 {
		waiting = defaultBacklog
	}
	while := b.load(at(slowRate), forEver, DefaultConnections)
	while.Duration = forEver
	watched := b.load(at(slowRate), middleTime, DefaultConnections)
	watched.Hosts = cmp.Or(b.o.Hosts, watchedHosts)
	alone := b.load(at(fastRate), middleTime, DefaultConnections)
	besides := alone
	besides.Readers = readerCount
	return []run{
		{scenario: "d", what: "shipping alone", backlog: waiting, noLoad: true},
		{scenario: "d", what: "to ClickHouse", load: b.load(0, longTime, DefaultConnections)},
		{scenario: "rate", what: fmt.Sprintf("%.0f/s", at(fastRate)), load: b.load(at(fastRate), middleTime, DefaultConnections)},
		{scenario: "memory", what: fmt.Sprintf("%.0f/s", at(slowRate)), load: b.load(at(slowRate), middleTime, manyConnections)},
		{scenario: "backlog", what: fmt.Sprintf("while %.0f/s", at(slowRate)), backlog: waiting, load: while, untilBacklog: true},
		{scenario: "tick", what: "no switch", load: watched},
		{scenario: "tick", what: fmt.Sprintf("%d hosts each second", watched.Hosts), load: watched, switched: true},
		{scenario: "readers", what: "nobody reads", load: alone, furnished: true},
		{scenario: "readers", what: fmt.Sprintf("%d read", besides.Readers), load: besides, furnished: true},
	}
}

// toClickHouse measures the scenarios with the engine.
func (b *bench) toClickHouse(ctx context.Context) error {
	for _, r := range b.runs() {
		if !b.wants(r.scenario) {
			continue
		}
		b.o.Progress(r.scenario + ": " + r.what)
		err := inFolder(b.o.Dir, func(folder string) error { return b.shipping(ctx, r, folder) })
		if err != nil {
			return fmt.Errorf("%s: %w", r.scenario, err)
		}
	}
	return nil
}

// shipping opens the hub's side and the engine, and measures one run.
func (b *bench) shipping(ctx context.Context, r run, folder string) (err error) {
	l := r.load
	if r.noLoad {
		l = b.load(0, 0, 0)
	}
	at, err := hubSite(l, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.stop()) }()
	if err := fill(ctx, at.spool, l, r.backlog); err != nil {
		return err
	}
	db, err := openDatabase(ctx, filepath.Join(folder, "clickhouse"), b.o.Launcher)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	s := newSum(r.scenario, r.what, l)
	if err := b.throughout(ctx, r, at, db, s); err != nil {
		return err
	}
	b.result.Rows = append(b.result.Rows, &s.Row)
	return nil
}

// throughout has the shipper run, and the agents post meanwhile, until
// everything is in ClickHouse.
func (b *bench) throughout(ctx context.Context, r run, at *site, db *database, s *sum) error {
	shipper := ship.New(ship.Options{Spool: at.spool, Store: db.DB, Logger: quiet})
	shipping, halt := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer halt()

	var watching *deadman.Switch
	if r.switched {
		var err error
		if watching, err = watch(ctx, at, db, r.load.Hosts); err != nil {
			return err
		}
		working.Go(func() { watching.Run(shipping) })
	}
	if r.furnished {
		if err := furnish(ctx, at, db); err != nil {
			return err
		}
	}
	before, engineBefore := used(), db.processor()
	began := time.Now()
	working.Go(func() { shipper.Run(shipping) })
	if r.noLoad {
		if err := untilShipped(ctx, at.spool, shipper, int64(r.backlog)); err != nil {
			return err
		}
		s.Reports, s.Seconds = int64(r.backlog), time.Since(began).Seconds()
		s.cost(used().since(before))
		s.Connections = 0
	} else if err := b.loaded(ctx, r, at, shipper, s); err != nil {
		return err
	}
	if watching != nil {
		s.Evaluated = watching.Status().Evaluated
	}
	s.EngineUS = float64((db.processor() - engineBefore).Microseconds()) / max(1, float64(shipper.Status().Shipped))
	return db.compare(ctx, s, int64(r.backlog))
}

// loaded is the part of a run in which agents post.
func (b *bench) loaded(ctx context.Context, r run, at *site, shipper *ship.Shipper, s *sum) error {
	memory := watchMemory(ctx)
	drained := make(chan time.Duration, 1)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	if r.untilBacklog {
		began := time.Now()
		go func() {
			if shippedBacklog(loading, shipper, int64(r.backlog)) {
				drained <- time.Since(began)
				stop()
			}
		}()
	}
	if err := b.post(loading, at, r.load, s); err != nil {
		return err
	}
	if samples := memory(); r.scenario == "memory" && len(samples) > 0 {
		s.MinMiB, s.MaxMiB = slices.Min(samples), slices.Max(samples)
		smooth := means(samples, memoryWindow)
		s.MeanMinMiB, s.MeanMaxMiB = slices.Min(smooth), slices.Max(smooth)
	}
	s.Left = at.spool.Stats().UnshippedRecords
	ended, usedBefore := time.Now(), used()
	if err := untilShipped(ctx, at.spool, shipper, 0); err != nil {
		return err
	}
	s.DrainedS = time.Since(ended).Seconds()
	s.used = s.used.plus(used().since(usedBefore))
	s.row()
	switch {
	case r.untilBacklog:
		s.HubMicros *= float64(s.Reports) / float64(shipper.Status().Shipped)
		s.PerSecond = float64(r.backlog) / (<-drained).Seconds()
	case r.load.Rate == 0:
		s.Seconds += s.DrainedS
		s.PerSecond = float64(s.Reports) / s.Seconds
	}
	return nil
}

const lookEvery = 5 * time.Millisecond

// shippedBacklog waits until so many records were shipped; false when ctx ended
// before.
func shippedBacklog(ctx context.Context, shipper *ship.Shipper, records int64) bool {
	for int64(shipper.Status().Shipped) < records {
		if !sleep(ctx, lookEvery) {
			return false
		}
	}
	return true
}

// untilShipped waits until nothing is left, and no fewer records than these were
// shipped.
func untilShipped(ctx context.Context, sp *spool.Spool, shipper *ship.Shipper, records int64) error {
	for sp.Stats().UnshippedRecords > 0 || int64(shipper.Status().Shipped) < records {
		if !sleep(ctx, lookEvery) {
			return ctx.Err()
		}
	}
	return nil
}

const fillBatch = 1000

// fill appends reports of the load's hosts to the spool.
func fill(ctx context.Context, sp *spool.Spool, l Load, reports int) error {
	if reports == 0 {
		return nil
	}
	agents := make([]*agent, min(l.Hosts, reports))
	for h := range agents {
		var err error
		if agents[h], err = newAgent(l, h, nil); err != nil {
			return err
		}
	}
	batch := make([]spool.Record, 0, fillBatch)
	for i := range reports {
		h := i % len(agents)
		batch = append(batch, spool.Record{Kind: hub.KindHostReport, HostID: hostID(h), CustomerID: customerName(h), KeyID: "k1", Body: agents[h].body()})
		// The next round of agents writes over the bodies of this one.
		if len(batch) == fillBatch || h == len(agents)-1 || i == reports-1 {
			if _, err := sp.Append(ctx, batch...); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// database is an engine of the run's own.
type database struct {
	*clickhouse.DB
	engine *engine.Engine
}

func openDatabase(ctx context.Context, dir, launcher string) (*database, error) {
	e, err := engine.New(engine.Options{Dir: dir, Launcher: launcher, Logger: quiet})
	if err != nil {
		return nil, err
	}
	if err := e.Start(ctx); err != nil {
		return nil, err
	}
	d := &database{engine: e}
	d.DB, err = clickhouse.Open(clickhouse.Options{DSN: "clickhouse://hub@embedded/hub", Resolve: func() (string, hub.Secret) {
		return e.Endpoint().TCP, e.Password(engine.RoleHub)
	}})
	if err == nil {
		_, err = d.Migrate(ctx, time.Now().UTC())
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *database) close() (err error) {
	if d.DB != nil {
		err = d.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	return errors.Join(err, d.engine.Stop(ctx))
}

// compare counts what is in ClickHouse: everything acknowledged, once.
func (d *database) compare(ctx context.Context, s *sum, backlog int64) error {
	text, err := d.engine.Query(ctx, engine.RoleHub, "SELECT count(), uniqExact(spool_id, spool_seq) FROM hub.host_reports")
	if err != nil {
		return err
	}
	var distinct uint64
	if _, err := fmt.Sscan(text, &s.InDatabase, &distinct); err != nil {
		return fmt.Errorf("count reports: %q: %w", text, err)
	}
	acknowledged := uint64(backlog + s.outcome.Acknowledged)
	// Those without an answer may be there or not.
	if s.InDatabase != distinct || s.InDatabase < acknowledged || s.InDatabase > acknowledged+uint64(s.outcome.Refused[noAnswer]) {
		return fmt.Errorf("ClickHouse has %d reports, %d of them distinct; %d were acknowledged", s.InDatabase, distinct, acknowledged)
	}
	return nil
}

// ticks of /proc/PID/stat are 1/100 s on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// processor returns what the engine's process has used; 0 where it is not known.
func (d *database) processor() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.engine.PID()))
	if err != nil {
		return 0
	}
	// Behind the name, which may hold spaces, utime and stime are 12th and 13th.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, _ := strconv.ParseInt(f, 10, 64)
		sum += time.Duration(n) * tick
	}
	return sum
}

// memoryWindow is so many seconds that the garbage collector ran a few times.
const memoryWindow = 20

// watchMemory samples this process's resident memory each second until the
// function it returns is called, which returns the samples of the last two thirds,
// in MiB.
func watchMemory(ctx context.Context) (stop func() []float64) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var samples []float64
	go func() {
		defer close(done)
		for sleep(ctx, time.Second) {
			samples = append(samples, resident())
		}
	}()
	return func() []float64 {
		cancel()
		<-done
		return samples[len(samples)/3:]
	}
}

// means returns the mean of each whole window of samples, of all where there is none.
func means(samples []float64, window int) (means []float64) {
	for part := range slices.Chunk(samples, min(window, len(samples))) {
		if len(part) < window && len(means) > 0 {
			break
		}
		sum := 0.0
		for _, mib := range part {
			sum += mib
		}
		means = append(means, sum/float64(len(part)))
	}
	return means
}

// resident returns this process's resident memory in MiB.
func resident() float64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages float64
	_, _ = fmt.Sscan(string(statm), &size, &pages)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}
