package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// alarmAfter is the number of deaths without a healthy minute between them
// that is reported as an error.
const alarmAfter = 3

// supervise keeps one engine running until ctx ends. It tells first how the
// first launch went, and returns when that failed.
func (e *Engine) supervise(ctx, hurried context.Context, lock *os.File, first chan<- error) {
	// The kernel ties the parent-death signal to the thread that forks, so this
	// goroutine forks and keeps its thread for as long as the engine may live.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	backoff, deaths := e.timing.backoff, 0
	want := e.configuredPorts()
	up := false // whether any launch came up
	for {
		var readyAt time.Time
		err := e.attempt(ctx, hurried, lock, want, func() {
			readyAt = time.Now()
			if !up {
				up = true
				first <- nil
			}
		})
		if ctx.Err() != nil {
			return
		}
		if !up {
			first <- err
			return
		}
		e.restarts.Add(1)
		want = e.nextPorts(err)
		if !readyAt.IsZero() && time.Since(readyAt) >= e.timing.healthy {
			backoff, deaths = e.timing.backoff, 0
		}
		backoff = min(backoff, e.timing.backoffMax)
		deaths++
		level := slog.LevelWarn
		if deaths >= alarmAfter {
			level = slog.LevelError
		}
		e.log.Log(ctx, level, "the engine died and is started again",
			"cause", err, "wait", backoff, "restarts", e.Restarts(), "deaths_in_a_row", deaths)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = 2 * backoff
	}
}

// ports are what the engine is asked to listen on.
type ports struct{ tcp, http int }

func (e *Engine) configuredPorts() ports { return ports{e.options.TCPPort, e.options.HTTPPort} }

// nextPorts returns the ports for the launch after one that died of cause: the
// last ones, so that clients which come back find the engine there, unless
// another process has taken them.
func (e *Engine) nextPorts(cause error) ports {
	if errors.Is(cause, ErrPortTaken) {
		return e.configuredPorts()
	}
	at := e.Endpoint()
	return ports{portOf(at.TCP), portOf(at.HTTP)}
}

func portOf(address string) int {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(text)
	return port
}

// attempt launches the engine, calls ready once it serves, and returns when it
// is gone: nil after ctx ended, else why it died. When hurried is done the end
// comes without grace.
func (e *Engine) attempt(ctx, hurried context.Context, lock *os.File, want ports, ready func()) error {
	c, err := e.launch(want, lock)
	if err != nil {
		return err
	}
	e.pid.Store(int64(c.pid()))
	defer e.pid.Store(0)

	if err = e.awaitReady(ctx, c); err == nil {
		ready()
		err = e.watch(ctx, c)
	}
	if ctx.Err() != nil {
		c.terminate(hurried, e.timing.grace)
		return nil
	}
	c.kill()
	return c.explain(err)
}

// awaitReady returns when the engine answers and the database exists, having
// made the endpoint known.
func (e *Engine) awaitReady(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeoutCause(ctx, e.timing.ready, fmt.Errorf("the engine did not answer within %v of its start", e.timing.ready))
	defer cancel()
	var at Endpoint
	select {
	case at = <-c.listening:
	case err := <-c.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		err := ping(ctx, at.HTTP, e.timing.pingWithin)
		if err == nil {
			break
		}
		select {
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if _, err := e.query(ctx, at.HTTP, RoleHub, "CREATE DATABASE IF NOT EXISTS "+e.options.Database); err != nil {
		return err
	}
	e.mu.Lock()
	e.endpoint = at
	e.mu.Unlock()
	e.log.Info("the engine is ready", "pid", c.pid(), "http", at.HTTP, "log", filepath.Join(e.options.Dir, logFile))
	return writeDescription(e.options.Dir, e.Describe())
}

// watch returns when the engine is dead or as good as dead, and when ctx ends.
func (e *Engine) watch(ctx context.Context, c *child) error {
	tick := time.NewTicker(e.timing.pingEvery)
	defer tick.Stop()
	address := e.Endpoint().HTTP
	for lost := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.failed:
			return err
		case <-tick.C:
		}
		err := ping(ctx, address, e.timing.pingWithin)
		if err == nil {
			lost = 0
			continue
		}
		if lost++; errors.Is(err, errDead) || lost >= e.timing.pingsLost {
			return err
		}
	}
}
