package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/simulate"
)

// Outcome is what the agents saw. Latency is from sending to having read the
// answer; with a rate, from the moment at which the report was to be sent,
// whether or not there was a free connection.
type Outcome struct {
	Acknowledged int64
	Bytes        int64 // of acknowledged bodies, as sent
	Plain        int64 // of the same before they were compressed
	Seconds      float64
	Refused      map[string]int64 // the others, by status, noAnswer where there was none
	Latency      simulate.Histogram
	Reads        Reads
}

// noAnswer is where Outcome.Refused counts what may have been stored or not.
const noAnswer = "no answer"

// poster sends a report of an agent and returns the status. It is used by one
// goroutine.
type poster interface {
	open() error
	post(a *agent, body []byte) (status int, err error)
	close()
}

// pause is how long a connection rests after a refusal.
const pause = 10 * time.Millisecond

// drive is a load being sent.
type drive struct {
	load    Load
	crews   []*crew
	began   time.Time
	tickets atomic.Int64
}

// crew is one connection and the agents that take turns on it.
type crew struct {
	poster
	agents []*agent
	turn   int
	result Outcome
}

// Drive makes the reports, connects, calls ready, and posts until the load is
// done or ctx ends.
func Drive(ctx context.Context, l Load, ready func() error) (*Outcome, error) {
	d := &drive{load: l}
	defer d.close()
	if err := d.prepare(); err != nil {
		return nil, err
	}
	if err := ready(); err != nil {
		return nil, err
	}
	if l.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Duration)
		defer cancel()
	}
	d.began = time.Now()
	var working sync.WaitGroup
	for _, c := range d.crews {
		working.Go(func() { d.work(ctx, c) })
	}
	reading, enough := context.WithCancel(ctx)
	defer enough()
	reads := make(chan *Reads, 1)
	go func() { reads <- read(reading, l) }()
	working.Wait()
	total := &Outcome{Seconds: time.Since(d.began).Seconds(), Refused: map[string]int64{}}
	enough()
	total.Reads = *<-reads
	for _, c := range d.crews {
		total.add(&c.result)
	}
	return total, nil
}

func (o *Outcome) add(other *Outcome) {
	o.Acknowledged += other.Acknowledged
	o.Bytes += other.Bytes
	o.Plain += other.Plain
	for why, n := range other.Refused {
		o.Refused[why] += n
	}
	o.Latency.Merge(&other.Latency)
	o.Reads.add(&other.Reads)
}

func (d *drive) prepare() error {
	compress, err := compressor(d.load.Encoding)
	if err != nil {
		return err
	}
	for range d.load.Connections {
		c := &crew{poster: newPoster(d.load)}
		c.result.Refused = map[string]int64{}
		d.crews = append(d.crews, c)
	}
	for h := range max(d.load.Hosts, d.load.Connections) {
		a, err := newAgent(d.load, h, compress)
		if err != nil {
			return err
		}
		c := d.crews[h%len(d.crews)]
		c.agents = append(c.agents, a)
	}
	// Compressing can take longer than the hub waits for a header.
	for _, c := range d.crews {
		if err := c.open(); err != nil {
			return err
		}
	}
	return nil
}

func (d *drive) close() {
	for _, c := range d.crews {
		c.close()
	}
}

// work posts on one connection. A report under way when ctx ends is finished.
func (d *drive) work(ctx context.Context, c *crew) {
	for {
		due, ok := d.next(ctx)
		if !ok {
			return
		}
		c.turn++
		a := c.agents[c.turn%len(c.agents)]
		body := a.body()
		if due.IsZero() {
			due = time.Now()
		}
		status, err := c.post(a, body)
		if err == nil && status == 200 {
			c.result.Acknowledged++
			c.result.Bytes += int64(len(body))
			c.result.Plain += int64(a.plain)
			c.result.Latency.Add(time.Since(due))
			continue
		}
		why := strconv.Itoa(status)
		if err != nil {
			why = noAnswer
			c.close()
			_ = c.open() // where that fails, so does the next post
		}
		c.result.Refused[why]++
		sleep(ctx, pause)
	}
}

// next waits until it is time to send one more report; due is zero where there
// is no rate.
func (d *drive) next(ctx context.Context) (due time.Time, ok bool) {
	ticket := d.tickets.Add(1) - 1
	if ctx.Err() != nil || d.load.Count > 0 && ticket >= d.load.Count {
		return due, false
	}
	if d.load.Rate == 0 {
		return due, true
	}
	due = d.began.Add(time.Duration(float64(ticket) / d.load.Rate * float64(time.Second)))
	return due, sleep(ctx, time.Until(due))
}

// sleep returns true after d, false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Words between the two processes, one a line.
const (
	readyWord = "ready"
	goWord    = "go"
)

// DriveChild is the child's main: it reads a Load as JSON from in, says that it
// is ready, waits for the word to go, and writes an Outcome. The end of in ends
// it: it does not outlive its parent.
func DriveChild(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := bufio.NewReader(in)
	var l Load
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &l)
	}
	if err != nil {
		return fmt.Errorf("read the load: %w", err)
	}
	outcome, err := Drive(ctx, l, func() error {
		if _, err := fmt.Fprintln(out, readyWord); err != nil {
			return err
		}
		if word, err := lines.ReadString('\n'); err != nil || word != goWord+"\n" {
			return errors.New("the bench went away")
		}
		go func() {
			_, _ = lines.ReadByte() // nothing more comes but the end
			cancel()
		}()
		return nil
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(outcome)
}
