// Package app wires the hub.
//
//	git remote ─► gitsync ─► roster ──── the fleet in force ────┐
//	                           │                                │
//	                           └─► register (ClickHouse)        ▼
//	agents ─► httpapi ─► ingest ─► spool ─► ship ─► ClickHouse ─► deadman
//	                                 ▲ │                            │
//	                                 │ └─► outbox ─► notify ─► people
//	                                 └───── states and events ◄─────┘
//
// New opens what lies on disk and binds the addresses; Start begins the work;
// Stop ends it in the reverse order. ClickHouse may be away at any time, also
// at the start: reports are acknowledged all the same.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"felhom.eu/hub/internal/certs"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/rejected"
	"felhom.eu/hub/internal/roster"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/selfprobe"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/watchdog"
)

// Options are what an App needs. Config is required.
type Options struct {
	Config   *config.Config
	Logger   *slog.Logger  // default slog.Default
	Launcher string        // hub-engine; empty: beside the running executable
	Version  string        // shown in the log and in metrics
	Linger   time.Duration // see ship.Options; tests have shorter ones

	// The clock that reports, silence, blind time and the fleet go by, and what calls
	// the switch by it; nil: the machine's. What only waits for others, as for
	// ClickHouse to come back, always goes by the machine's.
	Now   func() time.Time
	Every deadman.Every
}

// Folders of data_dir.
const (
	spoolFolder    = "spool"
	rejectedFolder = "rejected"
	mirrorFolder   = "fleet.git"
	engineFolder   = "clickhouse"
)

// States in the spool's folder.
const (
	recentState = "recent" // the retry index
	formerState = "former" // keys that left the fleet in the last day
)

// App is one hub.
type App struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	id      string // of data_dir
	claimed bool   // ClickHouse was told that this hub serves it
	now     func() time.Time

	spool    *spool.Spool
	opener   *seal.Opener
	acceptor *ingest.Acceptor
	repo     *gitsync.Repo
	roster   *roster.Roster
	engine   *engine.Engine // nil: a ClickHouse of one's own
	db       *clickhouse.DB
	shipper  *ship.Shipper
	outbox   *outbox.Outbox
	late     latecomers // events that readers wait for
	senders  senders
	sight    *deadman.Sight
	watch    *deadman.Switch
	certs    *certs.Pair // nil: listen is plain HTTP
	prober   *selfprobe.Prober
	feeder   *watchdog.Feeder // nil: nobody watches from outside
	server   *httpapi.Server

	dbProblem atomic.Pointer[string] // why the database is not in order; nil: not known yet, empty: it is
	// why the hub does not reach its own public address; nil: not known yet, empty: it does
	probeProblem atomic.Pointer[string]

	register   chan struct{} // the fleet changed: tell ClickHouse
	startedAt  time.Time
	firstFleet sync.Once
	keyAges    keyAges

	failed  chan error
	cancel  context.CancelFunc // of follow, judge and mirror
	halt    context.CancelFunc // of the shipper
	working sync.WaitGroup
	stopped sync.Once
}

// New opens the spool, the mirror and the addresses. Nothing runs yet but what
// keeps the spool.
func New(o Options) (a *App, err error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a = &App{cfg: o.Config, log: o.Logger, version: o.Version, now: o.Now, register: make(chan struct{}, 1), failed: make(chan error, 1)}
	a.startedAt = a.slot()
	defer func() {
		if err != nil {
			a.close()
			a = nil
		}
	}()
	if err := privateDir(a.cfg.DataDir); err != nil {
		return a, err
	}
	if a.id, err = dataDirID(a.cfg.DataDir); err != nil {
		return a, err
	}
	recall := deadman.NewRecall()
	if err := a.openIngest(recall); err != nil {
		return a, err
	}
	if err := a.openFleet(); err != nil {
		return a, err
	}
	if err := a.openDatabase(o.Launcher); err != nil {
		return a, err
	}
	kept, err := rejected.Open(RejectedDir(a.cfg))
	if err != nil {
		return a, err
	}
	a.shipper = ship.New(ship.Options{
		Spool: a.spool, Store: a.db, Linger: o.Linger, Rejected: kept, Retention: retention(a.cfg), Logger: a.log.With("part", "ship"),
	})
	a.sight = deadman.NewSight(deadman.SightOptions{
		Timing: a.timing(), Refusing: a.refusing, Memory: a.spool, Journal: a.spool, Now: a.now, Every: o.Every, Logger: a.log.With("part", "switch"),
	})
	a.watch = deadman.New(a.switchOptions(o.Every, recall))
	return a, a.openServer(o.Version)
}

func (a *App) switchOptions(every deadman.Every, recall *deadman.Recall) deadman.Options {
	return deadman.Options{
		Store: a.db, Deadlines: a.db, Records: a.db, Ready: a.databaseReady, Backlog: (*backlog)(a), Journal: a.spool, Eyes: a.sight, Memory: a.spool,
		Fleet: a.roster.Current, LastSeen: a.acceptor.LastSeen, FirstSeen: a.acceptor.FirstSeen, Recall: recall,
		Told:      a.tell,
		Newcomers: a.acceptor.Newcomers, Describe: a.db.LastSeen, Announced: a.acceptor.Announced,
		Base: a.thresholds(), Timing: a.timing(), Interval: a.cfg.Monitor.Interval, Now: a.now, Every: every,
		Logger: a.log.With("part", "switch"),
	}
}

// databaseReady has the switch wait until the database is in order, and this hub's.
func (a *App) databaseReady() error {
	if !a.prepared() {
		return fmt.Errorf("ClickHouse is not ready: %s", cmp.Or(a.databaseError(), "it has not answered yet"))
	}
	return nil
}

func (a *App) timing() deadman.Timing {
	return deadman.TimingFor(a.cfg.Monitor.StaleAfter, a.cfg.Ingest.PollInterval)
}

// privateDir makes the data directory, or refuses one that others can read.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("data_dir: %s may be read by others (mode %04o): chmod 700 %s", dir, mode, dir)
	}
	return nil
}

// openIngest opens the spool and fills the retry index from it, the outbox and recall.
func (a *App) openIngest(recall *deadman.Recall) error {
	journal := &journal{}
	a.acceptor = ingest.New(ingest.Options{
		Fleets: current(func() *hub.Fleet { return a.roster.Current() }), Spool: journal,
		NearlyFull:   func() bool { return journal.Stats().NearlyFull },
		PollInterval: a.cfg.Ingest.PollInterval,
		HostRate:     float64(a.cfg.Ingest.HostRate), CustomerRate: float64(a.cfg.Ingest.CustomerRate),
		Told:   func(e hub.Event) { a.outbox.Tell(e) },
		Now:    a.now,
		Logger: a.log.With("part", "ingest"),
	})
	a.openOutbox(journal)
	// A full disk has the spool remove volumes while it is being opened: what is
	// kept of them before must not replace a snapshot that was not read yet.
	restored := make(chan struct{})
	defer close(restored)
	sp, err := spool.Open(spool.Options{
		Dir: filepath.Join(a.cfg.DataDir, spoolFolder), MaxBytes: int64(a.cfg.Spool.MaxBytes),
		Now: a.now, Logger: a.log.With("part", "spool"), Recovered: func(e spool.Entry) {
			a.acceptor.Recover(e)
			recall.Add(e)
			a.late.note(a.outbox.Recover(e), e.ReceivedAt)
		},
		BeforeRemove: func() error {
			<-restored
			return errors.Join(journal.WriteState(recentState, a.acceptor.Snapshot()), journal.WriteState(outbox.StateName, a.outbox.Snapshot()))
		},
	})
	if err != nil {
		return err
	}
	a.spool, journal.Spool = sp, sp
	snapshot, err := sp.ReadState(recentState)
	if err == nil && len(snapshot) > 0 {
		err = a.acceptor.Restore(snapshot)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("the index of recent reports is lost: a retry of a report older than the spool would count twice", "error", err)
	}
	former, err := sp.ReadState(formerState)
	if err == nil {
		err = a.acceptor.RestoreFormerKeys(former)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("it is not known which keys left the fleet lately: hosts that still have them count as silent", "error", err)
	}
	return nil
}

// journal is the spool before it is open: the spool needs the acceptor to be
// opened, and the acceptor needs the spool to accept.
type journal struct{ *spool.Spool }

// backlog tells how far ClickHouse is behind the spool.
type backlog App

func (b *backlog) Behind() (oldest time.Time, doubt bool) {
	return b.spool.Stats().OldestUnshipped, b.shipper.Status().Rechecking
}

// current makes a function a source of the fleet in force.
type current func() *hub.Fleet

func (f current) Current() *hub.Fleet { return f() }

func (a *App) thresholds() hub.Thresholds {
	return hub.Thresholds{StaleAfter: a.cfg.Monitor.StaleAfter, DownAfter: a.cfg.Monitor.DownAfter}
}

func (a *App) openServer(version string) (err error) {
	var minter httpapi.Minter
	if a.cfg.Fleet.Mint != "off" {
		minter = &minting{a.repo, a.roster, a.cfg.Fleet}
	}
	webhook, err := a.webhook()
	if err != nil {
		return err
	}
	tlsConfig, err := a.openTLS()
	if err != nil {
		return err
	}
	if err := a.openOutside(); err != nil {
		return err
	}
	a.server, err = httpapi.New(httpapi.Options{
		Listen: a.cfg.Listen, TLS: tlsConfig, AdminListen: a.cfg.AdminListen, ControlSocket: control.Path(a.cfg.DataDir),
		Reports: a.acceptor, Minter: minter, Reading: (*reader)(a),
		Ready: a.ready, FleetStatus: func() any { return a.fleetStatus() }, Webhook: webhook,
		Status:         func(owner string) (any, error) { return a.status(version, owner) },
		Accept:         a.accept,
		Explain:        a.explain,
		Probe:          a.prober.Answer,
		Replay:         a.replay,
		Notifications:  a.notifications(),
		MaxConnections: a.cfg.Ingest.MaxConnections, MaxInFlightBytes: int64(a.cfg.Ingest.MaxInFlightBytes),
		Metrics: append(a.metrics(version), slices.Concat(a.controlMetrics(), a.tlsMetrics(), a.outsideMetrics(), a.messageMetrics())...), Logger: a.log.With("part", "http"),
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; stop what listens there, or choose another address", err)
	}
	return err
}

// Addr returns the address that agents use.
func (a *App) Addr() string { return a.server.Addr() }

// AdminAddr returns the address of health, metrics and fleet status.
func (a *App) AdminAddr() string { return a.server.AdminAddr() }

// Engine describes the embedded engine; false where a ClickHouse of one's own
// is used or the engine does not run yet.
func (a *App) Engine() (engine.Description, bool) {
	if a.engine == nil || a.engine.PID() == 0 {
		return engine.Description{}, false
	}
	return a.engine.Describe(), true
}

// Failed gives the error after which the hub cannot go on; the caller stops it.
func (a *App) Failed() <-chan error { return a.failed }

func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default: // the first one counts
	}
}

// Reload pulls the fleet repository at once.
func (a *App) Reload() { a.roster.Trigger() }
