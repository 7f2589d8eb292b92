package bench

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// Options say what to measure. Driver is required.
type Options struct {
	Driver   func() *exec.Cmd // a process that runs DriveChild on its standard input and output
	Dir      string           // where the spool and the engine lie meanwhile; empty: the folder for temporary files
	Launcher string           // hub-engine; empty: beside the running executable

	Scenarios   []string      // of Scenarios; empty: DefaultScenarios
	Connections int           // 0: DefaultConnections, memory 2,000
	Hosts       int           // that report in turns; 0: 10,000, of tick 100,000, with which the default rates do not get in the way
	Duration    time.Duration // of each scenario but backlog; 0: each its own
	Rate        float64       // of rate and readers (0: 2,000), memory, backlog and tick (0: 1,000), a second
	Encoding    string        // identity, gzip, zstd; empty: identity
	HTTP        int           // 1 or 2; 0: 1
	Backlog     int           // reports of backlog and of d's shipping alone; 0: 50,000
	Profile     string        // file for the processor profile of the hub's side; the scenario's name is added
	Progress    func(string)  // told of each scenario that begins; may be nil
}

// DefaultConnections is how many agents report at a time. A hub has thousands of
// them, each with a connection of its own, and what many send in one moment is
// synced together: fewer at a time would measure how long a sync takes.
const DefaultConnections = 128

// Scenarios are all that can be measured.
var Scenarios = []string{"a", "b", "c", "controllers", "d", "rate", "memory", "backlog", "tick", "readers"}

// DefaultScenarios are measured where none are named.
var DefaultScenarios = []string{"a", "b", "c", "controllers", "d", "rate"}

// rounds: the steps to the disk are measured in turns, so that what else the machine does
// falls on all of them.
const rounds = 3

// Result is the table.
type Result struct {
	FsyncMS float64 `json:"fsync_ms"` // median of writing and syncing 4 KiB
	CPUs    int     `json:"cpus"`
	HTTP    int     `json:"http"`
	Rows    []*Row  `json:"rows"`
}

// Row is what one scenario came to. A field that it does not have is 0.
type Row struct {
	Scenario    string           `json:"scenario"`
	What        string           `json:"what"`
	Connections int              `json:"connections"`
	Encoding    string           `json:"encoding"`
	Reports     int64            `json:"reports"` // acknowledged, or drained
	Seconds     float64          `json:"seconds"`
	PerSecond   float64          `json:"reports_per_second"`
	OfBare      float64          `json:"of_bare"`    // PerSecond as a share of a's
	BodyBytes   float64          `json:"body_bytes"` // as sent
	Saved       float64          `json:"saved"`      // by the encoding, as a share of the plain body
	P50         float64          `json:"p50_ms"`
	P99         float64          `json:"p99_ms"`
	P999        float64          `json:"p99_9_ms"`
	HubMicros   float64          `json:"hub_us"`    // processor time of the hub's side, a report
	EngineUS    float64          `json:"engine_us"` // the same of the engine
	Allocs      float64          `json:"allocs"`    // of the hub's side, a report
	AboveBare   float64          `json:"allocs_above_bare"`
	Left        int64            `json:"left"`           // records behind the cursor when the load ended
	DrainedS    float64          `json:"drained_s"`      // until they were in ClickHouse
	InDatabase  uint64           `json:"in_database"`    // reports there at the end
	MinMiB      float64          `json:"memory_min_mib"` // resident, over the last two thirds
	MaxMiB      float64          `json:"memory_max_mib"`
	MeanMinMiB  float64          `json:"memory_mean_min_mib"` // the same of the means of 20 s: without the collector's teeth
	MeanMaxMiB  float64          `json:"memory_mean_max_mib"`
	Evaluated   uint64           `json:"evaluated"` // times that the switch judged all hosts meanwhile
	Refused     map[string]int64 `json:"refused,omitempty"`

	Reads        int64            `json:"reads"` // answers to readers
	ReadP50      float64          `json:"read_p50_ms"`
	ReadP99      float64          `json:"read_p99_ms"`
	ReadsRefused map[string]int64 `json:"reads_refused,omitempty"`
	OfUnread     float64          `json:"p99_of_unread"` // P99 as a multiple of that while nobody read
}

// Check says what is wrong with the options, if anything is.
func (o Options) Check() error {
	for _, name := range o.Scenarios {
		if !slices.Contains(Scenarios, name) {
			return fmt.Errorf("%q is no scenario: they are %s", name, strings.Join(Scenarios, ", "))
		}
	}
	switch {
	case o.HTTP != 1 && o.HTTP != 2:
		return fmt.Errorf("there is no HTTP/%d here: 1 or 2", o.HTTP)
	case o.Connections < 0 || o.Hosts < 0 || o.Backlog < 0 || o.Rate < 0 || o.Duration < 0:
		return errors.New("connections, hosts, backlog, rate and duration must not be negative")
	}
	_, err := compressor(o.Encoding)
	return err
}

// bench is a run.
type bench struct {
	o      Options
	seed   string
	result *Result
}

// Run measures.
func Run(ctx context.Context, o Options) (*Result, error) {
	if len(o.Scenarios) == 0 {
		o.Scenarios = DefaultScenarios
	}
	if o.Encoding == "" {
		o.Encoding = "identity"
	}
	if o.HTTP == 0 {
		o.HTTP = 1
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	fsync, err := syncTime(o.Dir)
	if err != nil {
		return nil, err
	}
	b := &bench{o: o, seed: rand.Text(), result: &Result{
		FsyncMS: float64(fsync.Microseconds()) / 1000, CPUs: runtime.NumCPU(), HTTP: o.HTTP,
	}}
	if err := b.toTheDisk(ctx); err != nil {
		return nil, err
	}
	if err := b.toClickHouse(ctx); err != nil {
		return nil, err
	}
	b.compare()
	return b.result, nil
}

func (b *bench) wants(scenario string) bool { return slices.Contains(b.o.Scenarios, scenario) }

func (b *bench) load(rate float64, duration time.Duration, connections int) Load {
	if b.o.Duration > 0 {
		duration = b.o.Duration
	}
	if b.o.Connections > 0 {
		connections = b.o.Connections
	}
	return Load{HTTP: b.o.HTTP, Encoding: b.o.Encoding, Seed: b.seed, Hosts: cmp.Or(b.o.Hosts, defaultHosts),
		Connections: connections, Rate: rate, Duration: duration}
}

// step is a way of taking reports that needs no engine.
type step struct {
	scenario, what string
	open           func(l Load, folder string) (*site, error)
}

var steps = []step{
	{"a", "bare handler", func(l Load, _ string) (*site, error) { return bareSite(l.HTTP) }},
	{"b", "key and decode", func(l Load, _ string) (*site, error) { return hubSite(l, "") }},
	{"c", "to fsync", hubSite},
	{"controllers", "c, of controllers", hubSite},
}

const shortTime = 12 * time.Second // of each step, in rounds

// toTheDisk measures the steps in turns.
func (b *bench) toTheDisk(ctx context.Context) error {
	turns := rounds
	if b.o.Profile != "" {
		turns = 1 // one file holds one profile
	}
	sums := map[string]*sum{}
	for turn := range turns {
		for _, s := range steps {
			if !b.wants(s.scenario) {
				continue
			}
			b.o.Progress(fmt.Sprintf("%s: %s (%d of %d)", s.scenario, s.what, turn+1, turns))
			l := b.load(0, shortTime, DefaultConnections)
			l.Duration /= time.Duration(turns)
			l.Controllers = s.scenario == "controllers"
			if sums[s.scenario] == nil {
				sums[s.scenario] = newSum(s.scenario, s.what, l)
			}
			err := inFolder(b.o.Dir, func(folder string) error { return b.onSite(ctx, s, l, folder, sums[s.scenario]) })
			if err != nil {
				return fmt.Errorf("%s: %w", s.scenario, err)
			}
		}
	}
	for _, s := range steps {
		if got := sums[s.scenario]; got != nil {
			b.result.Rows = append(b.result.Rows, got.row())
		}
	}
	return nil
}

func (b *bench) onSite(ctx context.Context, s step, l Load, folder string, sum *sum) error {
	at, err := s.open(l, folder)
	if err != nil {
		return err
	}
	return errors.Join(b.post(ctx, at, l, sum), at.stop())
}

// sum adds up the rounds of a scenario.
type sum struct {
	Row
	outcome Outcome
	used    usage
}

func newSum(scenario, what string, l Load) *sum {
	return &sum{Row: Row{Scenario: scenario, What: what, Connections: l.Connections, Encoding: l.Encoding},
		outcome: Outcome{Refused: map[string]int64{}}}
}

func (s *sum) row() *Row {
	o := &s.outcome
	s.Reports, s.Seconds, s.Refused = o.Acknowledged, o.Seconds, o.Refused
	s.P50, s.P99, s.P999 = o.Latency.Quantile(0.5), o.Latency.Quantile(0.99), o.Latency.Quantile(0.999)
	s.Reads, s.ReadsRefused = o.Reads.Answered, o.Reads.Refused
	s.ReadP50, s.ReadP99 = o.Reads.Latency.Quantile(0.5), o.Reads.Latency.Quantile(0.99)
	s.cost(s.used)
	s.BodyBytes = float64(o.Bytes) / max(1, float64(o.Acknowledged))
	if o.Bytes < o.Plain {
		s.Saved = 1 - float64(o.Bytes)/float64(o.Plain)
	}
	return &s.Row
}

// cost divides by the reports.
func (r *Row) cost(u usage) {
	n := max(1, float64(r.Reports))
	r.PerSecond = float64(r.Reports) / r.Seconds
	r.HubMicros = float64(u.processor.Nanoseconds()) / 1000 / n
	r.Allocs = float64(u.allocs) / n
}

// post has the agents post to a site, and adds what came of it.
func (b *bench) post(ctx context.Context, at *site, l Load, s *sum) error {
	l.Address = at.address
	d, err := startDriver(b.o.Driver(), l)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // each round begins alike
	before := used()
	var o Outcome
	halt := context.AfterFunc(ctx, func() { _ = d.in.Close() }) // the agents finish and tell
	defer halt()
	err = b.profiled(s.Scenario, func() (err error) { o, err = d.run(); return err })
	if err != nil {
		return err
	}
	s.used = s.used.plus(used().since(before))
	s.outcome.Seconds += o.Seconds
	s.outcome.add(&o)
	if o.Acknowledged == 0 {
		return fmt.Errorf("no report was acknowledged: %v", o.Refused)
	}
	return nil
}

// profiled calls f, and writes the profile where one is wanted.
func (b *bench) profiled(scenario string, f func() error) error {
	if b.o.Profile == "" {
		return f()
	}
	file, err := os.Create(b.o.Profile + "." + scenario)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return errors.Join(err, file.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, file.Close())
}

// compare sets each row beside the bare handler's, and that of readers beside the one
// before it, without them.
func (b *bench) compare() {
	for i, r := range b.result.Rows {
		if r.Scenario == "readers" && r.Reads > 0 {
			r.OfUnread = r.P99 / b.result.Rows[i-1].P99
		}
	}
	i := slices.IndexFunc(b.result.Rows, func(r *Row) bool { return r.Scenario == "a" })
	if i < 0 {
		return
	}
	bare := b.result.Rows[i]
	for _, r := range b.result.Rows {
		r.OfBare = r.PerSecond / bare.PerSecond
		if r.Allocs > 0 {
			r.AboveBare = r.Allocs - bare.Allocs
		}
	}
}

// driver is the agents' process.
type driver struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startDriver starts the process and returns when it has made its reports and
// is connected.
func startDriver(command *exec.Cmd, l Load) (*driver, error) {
	d := &driver{cmd: command}
	d.cmd.Stderr = os.Stderr
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the agents: %w", err)
	}
	if err = json.NewEncoder(d.in).Encode(l); err == nil {
		if word, readErr := d.out.ReadString('\n'); readErr != nil || word != readyWord+"\n" {
			err = fmt.Errorf("the agents did not get ready: %q, %w", word, readErr)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.end())
	}
	return d, nil
}

// run lets them post, and returns when they are done.
func (d *driver) run() (o Outcome, err error) {
	if _, err = fmt.Fprintln(d.in, goWord); err == nil {
		err = json.NewDecoder(d.out).Decode(&o)
	}
	return o, errors.Join(err, d.end())
}

func (d *driver) end() error {
	_ = d.in.Close() // tells them to end, where they did not
	return d.cmd.Wait()
}
