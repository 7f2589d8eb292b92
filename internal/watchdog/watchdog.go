// Package watchdog feeds a watcher outside of the hub: a service such as
// Healthchecks or Dead Man's Snitch that expects a request now and then, and
// raises the alarm when none comes. It is fed only while the switch judges; so it
// notices a hub that died, and one that lives and does not judge.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const timeout = 10 * time.Second

// Options are what a Feeder needs; all but Logger are required.
type Options struct {
	URL      string
	Interval time.Duration
	// Healthy returns nil while the switch judges, and why it does not.
	Healthy func() error
	Logger  *slog.Logger // nil: discard
}

// Feeder feeds. Run does the work.
type Feeder struct {
	o      Options
	client *http.Client

	mu     sync.Mutex
	status Status
}

// Status is what the feeder did last.
type Status struct {
	FedAt     time.Time // zero: never
	LastError string    // of the newest attempt: why it was not fed; empty: it was
}

// New returns a feeder that has not begun.
func New(o Options) (*Feeder, error) {
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("that is not an address: write https://hc-ping.com/…")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Feeder{o: o, client: &http.Client{Timeout: timeout}}, nil
}

// Run feeds at each interval until ctx ends, at once the first time.
func (f *Feeder) Run(ctx context.Context) {
	tick := time.NewTicker(f.o.Interval)
	defer tick.Stop()
	defer f.client.CloseIdleConnections()
	for {
		f.note(f.feed(ctx))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *Feeder) feed(ctx context.Context) error {
	if err := f.o.Healthy(); err != nil {
		return fmt.Errorf("not fed on purpose: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.o.URL, nil)
	if err != nil {
		return err
	}
	res, err := f.client.Do(req)
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err // without the address: whoever knows it can feed the watcher
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

// note keeps the outcome; the log has a line where it changes.
func (f *Feeder) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	} else {
		f.status.FedAt = time.Now()
	}
	switch {
	case text != "" && f.status.LastError == "":
		f.o.Logger.Warn("the outside watchdog is not fed", "reason", text)
	case text == "" && f.status.LastError != "":
		f.o.Logger.Info("the outside watchdog is fed again")
	}
	f.status.LastError = text
}

// Status returns a copy.
func (f *Feeder) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}
