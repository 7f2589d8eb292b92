package app

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine"
)

// Bounds of Stop: together under the 10 s that a service manager waits.
const (
	drainRequests = 3 * time.Second
	stopMessages  = time.Second
	drainSpool    = 2 * time.Second
	stopEngine    = 3 * time.Second
)

const (
	minRetry = 200 * time.Millisecond
	maxRetry = 10 * time.Second
	// How often a ClickHouse that is away is asked while the hub starts, and how
	// often at most the log says what it answers.
	maxKnock  = time.Second
	logKnocks = 10 * time.Second
)

// Start begins the work and returns. Mistakes that only show later, as a
// database that a newer hub made, come through Failed.
func (a *App) Start(ctx context.Context) error {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	shipping, halt := context.WithCancel(context.WithoutCancel(ctx))
	a.cancel, a.halt = cancel, halt

	a.outbox.Start() // before anything happens
	a.server.Start()
	a.working.Go(func() { a.roster.Run(working) })
	a.working.Go(func() { a.sight.Run(working) })
	a.working.Go(func() { a.watch.Run(working) }) // held back, and says so, while ClickHouse is not there
	a.working.Go(func() { a.probe(working) })
	a.working.Go(func() { a.watchSelf(working) })
	if a.feeder != nil {
		a.working.Go(func() { a.feeder.Run(working) })
	}
	if a.certs != nil {
		a.working.Go(func() { a.certs.Run(working) })
	}
	a.working.Go(func() {
		if a.startDatabase(working) != nil {
			return
		}
		a.working.Go(func() { a.syncRegister(working) })
		a.working.Go(func() { a.beat(working) })
		a.shipper.Run(shipping)
	})
	a.working.Go(func() {
		select {
		case err := <-a.server.Failed():
			a.fail(err)
		case <-working.Done():
		}
	})
	a.log.Info("the hub runs", "listen", a.Addr(), "admin_listen", a.AdminAddr(), "data_dir", a.cfg.DataDir)
	return nil
}

// startDatabase brings up the engine, where it is ours, and the schema. It
// tries until it succeeds or ctx ends; reports wait in the spool meanwhile.
func (a *App) startDatabase(ctx context.Context) error {
	var logged string
	var loggedAt time.Time
	for wait := minRetry; ; wait = min(2*wait, a.longestWait()) {
		err := a.prepareDatabase(ctx)
		if err == nil {
			fine := ""
			a.dbProblem.Store(&fine)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		text := err.Error()
		a.dbProblem.Store(&text)
		if errors.Is(err, ErrSecondHub) || errors.Is(err, clickhouse.ErrSchema) || errors.Is(err, engine.ErrInUse) || errors.Is(err, engine.ErrPortTaken) {
			a.fail(err)
			return err
		}
		if text != logged && time.Since(loggedAt) >= logKnocks {
			a.log.Warn("ClickHouse is not ready; reports are kept in the spool", "error", err)
			logged, loggedAt = text, time.Now()
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// longestWait is short for a server that may come back at any moment. An engine of
// ours that does not start costs the processor at each try.
func (a *App) longestWait() time.Duration {
	if a.engine != nil && a.engine.PID() == 0 {
		return maxRetry
	}
	return maxKnock
}

func (a *App) prepareDatabase(ctx context.Context) error {
	if a.engine != nil {
		err := a.engine.Start(ctx)
		if errors.Is(err, engine.ErrPortTaken) {
			err = fmt.Errorf("clickhouse.embedded (tcp_port or http_port): %w", err)
		}
		if err != nil {
			return err
		}
	}
	if _, err := a.db.Check(ctx); err != nil {
		return err
	}
	steps, err := a.db.Migrate(ctx, a.slot())
	if err != nil {
		return err
	}
	for _, s := range steps {
		a.log.Info("schema step applied", "version", s.Version, "name", s.Name)
	}
	if err := a.claimDatabase(ctx); err != nil {
		return err
	}
	return a.db.SetRetention(ctx, retention(a.cfg))
}

// syncRegister writes each fleet that comes into force to ClickHouse, and with the
// first one asks when keys were last used.
func (a *App) syncRegister(ctx context.Context) {
	register, restored := clickhouse.NewRegister(a.db), false
	for {
		select {
		case <-a.register:
		case <-ctx.Done():
			return
		}
		for wait := minRetry; ; wait = min(2*wait, maxRetry) {
			err := register.Sync(ctx, a.roster.Current(), a.roster.Status().AppliedAt, a.thresholds())
			if err == nil && !restored {
				err = a.restoreUses(ctx)
				restored = err == nil
				debug.FreeOSMemory() // the first comparison is the large one
			}
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				a.log.Warn("the fleet could not be written to ClickHouse yet", "error", err)
			}
			if !sleep(ctx, wait) {
				return
			}
		}
	}
}

// Stop finishes what is under way and returns within 10 s. Reports that did not
// reach ClickHouse stay in the spool.
func (a *App) Stop(ctx context.Context) error {
	a.stopped.Do(func() {
		a.log.Info("the hub stops")
		if a.cancel != nil {
			requests, done := context.WithTimeout(ctx, drainRequests)
			_ = a.server.Stop(requests) // what did not finish was not acknowledged
			done()
			a.cancel()
			a.haltMessages()
			a.drain(ctx)
			a.halt()
			a.working.Wait()
			if a.claimed {
				a.leaveDatabase(ctx)
			}
			a.keepOpened(1)
			if err := a.spool.WriteState(recentState, a.acceptor.Snapshot()); err != nil {
				// The spool keeps the same for as long as its volumes stay.
				a.log.Warn("the index of recent reports could not be written", "error", err)
			}
		}
		a.close()
		a.log.Info("the hub has stopped")
	})
	return nil
}

// drain gives the shipper a moment to bring the last reports to ClickHouse.
func (a *App) drain(ctx context.Context) {
	deadline := time.Now().Add(drainSpool)
	for time.Now().Before(deadline) && a.databaseError() == "" && a.spool.Stats().UnshippedRecords > 0 {
		if !sleep(ctx, 10*time.Millisecond) {
			return
		}
	}
}

// close lets go of what New opened; parts may be missing.
func (a *App) close() {
	if a.server != nil {
		_ = a.server.Stop(context.Background())
	}
	if a.db != nil {
		_ = a.db.Close()
	}
	if a.engine != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopEngine)
		_ = a.engine.Stop(ctx)
		cancel()
	}
	if a.repo != nil {
		_ = a.repo.Close()
	}
	if a.spool != nil {
		if err := a.spool.Close(); err != nil {
			a.log.Error("the spool could not be closed cleanly; nothing acknowledged is lost", "error", err)
		}
	}
}

// sleep returns true after d, false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
