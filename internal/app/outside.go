package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/selfprobe"
	"felhom.eu/hub/internal/watchdog"
)

// probeInterval is the time between two knocks at the hub's own public address.
var probeInterval = 10 * time.Second // tests have a shorter one

// openOutside makes what looks at the hub from outside: the probe of its own
// address, and the feeder of the watchdog, where there is one.
func (a *App) openOutside() (err error) {
	m := a.cfg.Monitor
	a.prober, err = selfprobe.New(selfprobe.Options{URL: m.ProbeURL, Listen: a.Addr, TLS: a.certs != nil})
	if err != nil {
		return fmt.Errorf("monitor.probe_url: %w", err)
	}
	if m.WatchdogURL == "" {
		return nil
	}
	a.feeder, err = watchdog.New(watchdog.Options{URL: m.WatchdogURL, Interval: m.Interval, Healthy: a.judging, Logger: a.log.With("part", "watchdog")})
	if err != nil {
		return fmt.Errorf("monitor.watchdog_url: %w", err)
	}
	return nil
}

// probe knocks until ctx ends.
func (a *App) probe(ctx context.Context) {
	for sleep(ctx, probeInterval) {
		err := a.prober.Probe(ctx)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		before := a.probeProblem.Swap(&text)
		switch failed := before != nil && *before != ""; {
		case text != "" && !failed:
			a.log.Warn("the hub does not reach its own public address: agents may not either", "error", err)
		case text == "" && failed:
			a.log.Info("the hub reaches its own public address again")
		}
	}
}

// unreachable says why the hub does not reach its own public address; empty when
// it does, or did not try yet.
func (a *App) unreachable() string {
	if text := a.probeProblem.Load(); text != nil {
		return *text
	}
	return ""
}

// judging returns nil while the switch judges, or why it does not.
func (a *App) judging() error {
	sw := a.watch.Status()
	switch late := a.now().Sub(sw.LastJudged); {
	case sw.HeldBy != "":
		return fmt.Errorf("the switch is held back: %s", sw.HeldBy)
	case sw.LastJudged.IsZero():
		return errors.New("the switch has not judged yet")
	case late > 3*a.cfg.Monitor.Interval+time.Second:
		return fmt.Errorf("the switch has not judged for %s", late.Round(time.Second))
	}
	return nil
}

func (a *App) outsideMetrics() []httpapi.Metric {
	list := []httpapi.Metric{{
		Name: "hub_probe_failing", Help: "1 while the hub does not reach its own public address.",
		Value: func() float64 { return truth(a.unreachable() != "") },
	}}
	if a.feeder != nil {
		list = append(list, httpapi.Metric{
			Name: "hub_watchdog_fed_age_seconds", Help: "Time since the outside watchdog was last fed, in seconds; 0 before the first time.",
			Value: func() float64 { return age(time.Now(), a.feeder.Status().FedAt) },
		})
	}
	return list
}
