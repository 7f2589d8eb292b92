// Package engine runs the embedded ClickHouse: real ClickHouse, opened from a
// library in a child process (cmd/hub-engine) that serves ClickHouse's own
// native and HTTP ports on the loopback address.
//
// The one idea is that this engine is expected to die (a refused login on the
// native port is enough) and must then be back within a second, while it must
// never outlive the hub. So a supervisor reads its log, asks it whether it
// serves, ends it at the first sign of death and starts it again; and a pipe
// that closes with the hub takes the engine along.
//
// The engine's users, and what each may do, are in users.xml.tmpl.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Role is a user of the engine.
type Role string

// The engine's users. There is a third, "default", that may do nothing.
const (
	RoleHub     Role = "hub"     // may do everything, also create databases
	RoleAnalyst Role = "analyst" // may read Options.Database, within limits
)

// Reasons why a start fails, for callers that can do something about them.
var (
	ErrInUse     = errors.New("another engine runs in this directory")
	ErrPortTaken = errors.New("the port is taken")
)

// Options are what New needs. Only Dir is required.
type Options struct {
	Dir      string // the engine's files and data; made 0700
	Launcher string // hub-engine; "": beside the running executable
	Library  string // libchdb.so; "": as FindLibrary says

	TCPPort, HTTPPort int // on 127.0.0.1; 0: a free one

	Database string // made by Start, readable for analyst; "": "hub"

	// MaxBackoff is the longest wait before a restart; 0: 30 s. A test that
	// kills the engine again and again wants less.
	MaxBackoff time.Duration

	Logger *slog.Logger
}

// Endpoint is where the engine listens: addresses as host:port.
type Endpoint struct {
	TCP  string `json:"tcp"`  // ClickHouse's native protocol; known to the hub alone
	HTTP string `json:"http"` // ClickHouse's HTTP interface
}

// timing is how patient the supervisor is.
type timing struct {
	lock       time.Duration // wait for a dying predecessor
	ready      time.Duration // from launch to the first answer
	pingEvery  time.Duration
	pingWithin time.Duration
	pingsLost  int           // in a row, until the engine counts as dead
	grace      time.Duration // from SIGTERM to SIGKILL
	backoff    time.Duration // before the first restart; doubles
	backoffMax time.Duration
	healthy    time.Duration // a run as long as this resets the backoff
}

var patience = timing{
	lock: 2 * time.Second, ready: 5 * time.Minute,
	pingEvery: 2 * time.Second, pingWithin: 10 * time.Second, pingsLost: 3,
	grace:   2 * time.Second,
	backoff: 100 * time.Millisecond, backoffMax: 30 * time.Second, healthy: time.Minute,
}

// Engine is one supervised ClickHouse.
type Engine struct {
	options Options
	timing  timing
	log     *slog.Logger

	life    sync.Mutex // held by Start and Stop
	running *run       // nil while stopped

	mu        sync.Mutex // guards the two below
	endpoint  Endpoint
	passwords map[Role]hub.Secret

	pid      atomic.Int64
	restarts atomic.Int64
}

// run is the time between one Start and its Stop.
type run struct {
	lock   *os.File
	cancel context.CancelFunc
	hurry  context.CancelFunc // no grace between SIGTERM and SIGKILL
	done   chan struct{}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// New checks the options and finds launcher and library. It starts nothing and
// writes nothing.
func New(o Options) (*Engine, error) {
	if o.Dir == "" {
		return nil, errors.New("engine: no directory given")
	}
	var err error
	// With a relative path the engine cannot fsync a part's directory.
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if o.Database == "" {
		o.Database = "hub"
	}
	if !identifier.MatchString(o.Database) {
		return nil, fmt.Errorf("engine: %q is no name of a database: letters, digits and _ are allowed", o.Database)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Launcher, err = findLauncher(o.Launcher); err != nil {
		return nil, err
	}
	if o.Library, err = FindLibrary(o.Library); err != nil {
		return nil, err
	}
	e := &Engine{options: o, timing: patience, log: o.Logger.With("part", "engine")}
	if o.MaxBackoff > 0 {
		e.timing.backoffMax = o.MaxBackoff
	}
	return e, nil
}

// findLauncher returns the absolute path of hub-engine.
func findLauncher(configured string) (string, error) {
	path := configured
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return "", err
		}
		path = filepath.Join(filepath.Dir(self), "hub-engine")
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return "", fmt.Errorf("the engine's launcher is not at %s: make build puts hub-engine beside hub; or use a ClickHouse of your own (clickhouse.dsn)", path)
	}
	return filepath.Abs(path)
}

// Start starts the engine and returns when it answers and Database exists; from
// then on it is supervised until Stop. ctx bounds the start alone. An engine
// that does not come up is an error here and is not tried again; ErrInUse and
// ErrPortTaken name the two usual causes. Starting a started engine does nothing.
func (e *Engine) Start(ctx context.Context) error {
	e.life.Lock()
	defer e.life.Unlock()
	if e.running != nil {
		return nil
	}
	lock, err := e.prepare()
	if err != nil {
		return err
	}
	// The engine outlives ctx, which is only about the start.
	alive, cancel := context.WithCancel(context.WithoutCancel(ctx))
	hurried, hurry := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{lock: lock, cancel: cancel, hurry: hurry, done: make(chan struct{})}
	first := make(chan error, 1)
	go func() {
		defer close(r.done)
		e.supervise(alive, hurried, lock, first)
	}()

	select {
	case err = <-first:
	case <-ctx.Done():
		err = fmt.Errorf("the engine did not come up in time: %w", ctx.Err())
		hurry()
	}
	if err != nil {
		e.end(r)
		return err
	}
	e.running = r
	return nil
}

// prepare makes the directory, takes it, and writes the configuration.
func (e *Engine) prepare() (lock *os.File, err error) {
	dir := e.options.Dir
	if err := os.MkdirAll(filepath.Join(dir, dataFolder), 0o700); err != nil {
		return nil, err
	}
	if lock, err = lockDir(dir, e.timing.lock); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	passwords, err := readPasswords(dir, true)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, endpointFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	e.mu.Lock()
	e.passwords = passwords
	e.mu.Unlock()
	return lock, writeConfiguration(dir, e.options.Database, passwords)
}

// Stop ends the engine: SIGTERM, and SIGKILL where that is not enough or when
// ctx ends. Inserts must be finished before: the engine drains nothing. When it
// returns no process is left. Stopping a stopped engine does nothing.
func (e *Engine) Stop(ctx context.Context) error {
	e.life.Lock()
	defer e.life.Unlock()
	if e.running == nil {
		return nil
	}
	r := e.running
	e.running = nil
	stopWaiting := context.AfterFunc(ctx, r.hurry)
	defer stopWaiting()
	e.end(r)
	return nil
}

// end waits for the supervisor to finish and gives up the directory.
func (e *Engine) end(r *run) {
	r.cancel()
	<-r.done
	r.hurry()
	_ = os.Remove(filepath.Join(e.options.Dir, endpointFile))
	_ = r.lock.Close()
}

// Endpoint returns where the engine listens, or listened last. A restart keeps
// the ports where it can, so ask again after a connection was lost.
func (e *Engine) Endpoint() Endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.endpoint
}

// Password returns the password of role; empty before the first Start.
func (e *Engine) Password(role Role) hub.Secret {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.passwords[role]
}

// Describe returns what a client needs to know of this engine.
func (e *Engine) Describe() Description {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Description{Endpoint: e.endpoint, PID: e.PID(), Database: e.options.Database, passwords: e.passwords}
}

// PID returns the process id of the engine, 0 while none runs.
func (e *Engine) PID() int { return int(e.pid.Load()) }

// Restarts returns how often the engine died and was started again.
func (e *Engine) Restarts() int64 { return e.restarts.Load() }
