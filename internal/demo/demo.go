// Package demo is the guided tour: a whole Felhom in one folder, with time
// running faster.
//
// Nothing in it is a stand-in. The fleet comes from a git repository by the
// hub's own mirror, agents post over HTTP with keys that were sealed for them,
// ClickHouse is the embedded engine, and what the screen shows of reports and
// events was read there, as an analyst reads it. Only the hosts are made up.
//
// The folder holds everything, so a later run in it goes on where the last one
// stopped.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/roster"
)

// Options are what Run needs. Dir, Hosts, Speed and Out are required.
type Options struct {
	Dir      string  // made 0700 where it is missing
	Hosts    int     // to enroll; a folder that is there keeps its own
	Speed    float64 // how many times faster time runs; at most 1000
	Launcher string  // hub-engine; empty: beside the running executable
	Program  string  // how the user calls hub, for lines to paste; empty: os.Args[0]
	Version  string
	Out      io.Writer
	Terminal bool // Out is one: counters are rewritten in place
}

// Bounds of the end, together under the 10 s that people wait.
const (
	endAgents = 1 * time.Second
	endHub    = 8 * time.Second
)

// Between two looks at what there is to show: often until all runs.
const (
	lookSoon = 100 * time.Millisecond
	look     = time.Second
)

// demo is one run.
type demo struct {
	Options
	folder  folder
	pace    pace
	screen  *screen
	agents  agents
	analyst analyst
	hub     *app.App
	began   time.Time

	fleet   roster.Status // the last one shown
	guided  bool          // the guide was shown: everything runs
	trouble string        // why ClickHouse does not run, as last shown
}

// Run runs a demo until ctx ends, which is no error, or until it cannot go on.
// It returns within 10 s and leaves no process.
func Run(ctx context.Context, o Options) error {
	if o.Program == "" {
		o.Program = os.Args[0]
	}
	if o.Hosts < 1 {
		return fmt.Errorf("%d hosts: there must be at least 1", o.Hosts)
	}
	t, err := paceOf(o.Speed)
	if err != nil {
		return err
	}
	d := &demo{Options: o, folder: folder(filepath.Clean(o.Dir)), pace: t, screen: newScreen(o.Out, o.Terminal), began: time.Now()}
	if err := d.folder.claim(); err != nil {
		return err
	}
	end, err := d.folder.control(d.steer)
	if err != nil {
		return err
	}
	defer end()
	return d.run(ctx)
}

// run brings up the parts in turn, looks at them until ctx ends, and ends them
// in the reverse order.
func (d *demo) run(ctx context.Context) error {
	d.screen.print(fmt.Sprintf("Felhom hub %s: a demo in %s, %v times faster than life. Ctrl-C ends it.\n\n", d.Version, d.folder, d.pace.speed))
	if err := d.prepare(ctx); err != nil {
		return err
	}
	hide := d.showMessages()
	defer hide()
	log, err := os.OpenFile(d.folder.path(logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := d.startHub(ctx, log); err != nil {
		return fmt.Errorf("%w (the hub's log: %s)", err, log.Name())
	}
	watching, silence := context.WithCancel(ctx)
	err = d.watch(watching)
	silence()
	d.screen.end()
	d.agents.wait(endAgents)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), endHub)
	defer cancel()
	if err = errors.Join(err, d.hub.Stop(stopping)); err != nil {
		return fmt.Errorf("%w (the hub's log: %s)", err, log.Name())
	}
	d.screen.say(time.Now(), "end", "%s reports accepted; %s demo --dir %s goes on from here",
		number(d.agents.accepted()), quote(d.Program), quote(string(d.folder)))
	return nil
}

// prepare makes the folder's pieces, or takes those that are there.
func (d *demo) prepare(ctx context.Context) error {
	made, err := d.folder.prepare(ctx, d.Hosts)
	if err != nil {
		return err
	}
	keys, err := d.folder.keys()
	switch {
	case err != nil:
		return err
	case made:
		d.screen.say(time.Now(), "fleet", "made %s: %s of %s", d.folder.path(originDir), plural(len(hostsOf(keys)), "host"), plural(len(customers), "customer"))
	case len(hostsOf(keys)) != d.Hosts:
		d.screen.say(time.Now(), "fleet", "found %s: %s; another number needs another --dir", d.folder.path(originDir), plural(len(hostsOf(keys)), "host"))
	default:
		d.screen.say(time.Now(), "fleet", "found %s: %s", d.folder.path(originDir), plural(len(hostsOf(keys)), "host"))
	}
	return nil
}

// showMessages shows what the operators are told. Without it messages wait in the hub.
func (d *demo) showMessages() (end func()) {
	i, err := d.folder.openInbox(func(text string) { d.screen.say(time.Now(), "message", "%s", cut(text, 80)) })
	if err != nil {
		d.screen.say(time.Now(), "message", "none will be shown: %v", err)
		return func() {}
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), endAgents)
		defer cancel()
		_ = i.close(ctx)
	}
}

// startHub writes the configuration and starts the hub that it describes, just
// as hub serve would.
func (d *demo) startHub(ctx context.Context, log io.Writer) error {
	p, err := freePorts()
	if err != nil {
		return err
	}
	file, err := d.folder.writeConfig(p, d.pace)
	if err != nil {
		return err
	}
	cfg, err := config.Load(file, nil)
	if err != nil {
		return err
	}
	d.hub, err = app.New(app.Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(log, nil)), Launcher: d.Launcher, Version: d.Version})
	if err != nil {
		return err
	}
	if err := d.hub.Start(ctx); err != nil {
		return errors.Join(err, d.hub.Stop(ctx))
	}
	d.agents.url, d.agents.interval, d.agents.first = "http://"+d.hub.Addr(), d.pace.report, d.firstReport
	d.analyst.engine, d.analyst.since, d.analyst.told = d.hub.Engine, d.began, make(map[string]bool)
	d.screen.say(time.Now(), "hub", "listens on %s; its log is %s", d.hub.Addr(), d.folder.path(logFile))
	return nil
}

func (d *demo) firstReport() {
	now := time.Now()
	d.screen.say(now, "report", "first report accepted after %s", seconds(now.Sub(d.began)))
}

// steer is what hub demo stop and start come to.
func (d *demo) steer(action, hostID string) error {
	if err := d.agents.steer(action, hostID); err != nil {
		return err
	}
	if action == "stop" {
		d.screen.say(time.Now(), "agent", "%s is silenced: stale after %s, down after %s", hostID, brief(d.pace.stale), brief(d.pace.down))
	} else {
		d.screen.say(time.Now(), "agent", "%s reports again", hostID)
	}
	return nil
}

// watch shows what happens, and has the agents report, until ctx ends.
func (d *demo) watch(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.hub.Failed():
			return err
		case <-timer.C:
		}
		if err := d.lookAtFleet(ctx); err != nil {
			return err
		}
		if d.guided {
			d.lookAtReports(ctx)
			timer.Reset(look)
		} else {
			if err := d.lookAtStart(ctx); err != nil {
				return err
			}
			timer.Reset(lookSoon)
		}
	}
}

// lookAtFleet tells of commits that came into force or were rejected, and lets
// the agents of newly enrolled hosts begin.
func (d *demo) lookAtFleet(ctx context.Context) error {
	var now roster.Status
	if err := d.admin(ctx, "/api/v1/fleet/status", &now); err != nil {
		return nil // the hub is ending, or will tell next time
	}
	before := d.fleet
	d.fleet = now
	if now.Revision != before.Revision {
		d.screen.say(time.Now(), "fleet", "%s in force, %s%s", short(now.Revision), plural(now.Hosts, "host"), d.subject(ctx, now.Revision))
		if err := d.enlist(ctx, before.Revision == ""); err != nil {
			return err
		}
	}
	if len(now.Problems) > 0 && now.Head != before.Head {
		d.screen.say(time.Now(), "rejected", "%s has mistakes, %s stays in force%s", short(now.Head), short(now.Revision), d.subject(ctx, now.Head))
		for _, p := range now.Problems {
			d.screen.print("    " + p.String() + "\n")
		}
	}
	return nil
}

// subject is what a commit's author wrote about it.
func (d *demo) subject(ctx context.Context, revision string) string {
	subject, err := git(ctx, d.folder.path(originDir), "log", "-1", "--format=%s", revision)
	if err != nil || subject == "" {
		return ""
	}
	return ": " + cut(subject, 30)
}

// enlist lets the hosts of the keys file report that do not do so yet.
func (d *demo) enlist(ctx context.Context, first bool) error {
	keys, err := d.folder.keys()
	if err != nil && !first {
		d.screen.say(time.Now(), "agent", "no new agents: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	joined, err := d.agents.join(ctx, keys)
	if err == nil && !first {
		for _, id := range joined {
			d.screen.say(time.Now(), "agent", "%s begins to report", id)
		}
	}
	return err
}

// lookAtStart shows the guide as soon as ClickHouse answers analysts.
func (d *demo) lookAtStart(ctx context.Context) error {
	if !d.prepared(ctx) {
		return nil
	}
	if _, err := d.analyst.counts(ctx, d.began); err != nil {
		return nil
	}
	engine, ok := d.hub.Engine()
	if !ok || d.fleet.Revision == "" {
		return nil
	}
	d.screen.say(time.Now(), "clickhouse", "answers on %s after %s", engine.HTTP, seconds(time.Since(d.began)))
	d.guided = true
	return d.guide(engine)
}

// prepared tells why ClickHouse does not come up, and returns true once it is
// ready. The hub goes on trying.
func (d *demo) prepared(ctx context.Context) bool {
	var ready struct {
		Detail struct {
			ClickHouse struct {
				Prepared  bool
				LastError string `json:"last_error"`
			}
		}
	}
	if err := d.admin(ctx, "/readyz", &ready); err != nil {
		return false
	}
	if trouble := ready.Detail.ClickHouse.LastError; trouble != d.trouble {
		if d.trouble = trouble; trouble != "" {
			d.screen.say(time.Now(), "clickhouse", "not ready: %s", trouble)
		}
	}
	return ready.Detail.ClickHouse.Prepared
}

// lookAtReports tells of new events and counts what there is.
func (d *demo) lookAtReports(ctx context.Context) {
	events, err := d.analyst.events(ctx)
	var counts map[string]int64 // none: ClickHouse is away
	if err == nil {
		counts, _ = d.analyst.counts(ctx, d.began)
	}
	if ctx.Err() != nil {
		return
	}
	for _, e := range events {
		subject, what := e.HostID, fmt.Sprintf("silent for %.1f s", e.SilenceSeconds)
		if e.Source == "controller" {
			subject, what = e.GuestID, e.Reason
		}
		d.screen.say(e.DetectedAt, string(e.Type), "%-20s %-11s %s", subject, e.CustomerID, what)
	}
	d.screen.count(time.Now(), line(d.agents.accepted(), counts, d.fleet.Revision))
}

// admin reads what the hub tells of itself.
func (d *demo) admin(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.hub.AdminAddr()+path, nil)
	if err != nil {
		return err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	return json.NewDecoder(reply.Body).Decode(into)
}
