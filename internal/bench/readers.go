package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/simulate"
)

const (
	readerCount = 50     // each of a customer of its own
	knownEvents = 20_000 // of all customers, of the last day
	pollEvery   = time.Second
)

// Reads are what readers saw.
type Reads struct {
	Answered int64
	Refused  map[string]int64 // by status, noAnswer where there was none
	Latency  simulate.Histogram
}

func (r *Reads) add(other *Reads) {
	r.Answered += other.Answered
	for why, n := range other.Refused {
		r.refused(why, n)
	}
	r.Latency.Merge(&other.Latency)
}

func (r *Reads) refused(why string, n int64) {
	if r.Refused == nil {
		r.Refused = map[string]int64{}
	}
	r.Refused[why] += n
}

// read has the readers of a load ask on both routes once a second each, until ctx
// ends. They do not all ask at the same moment.
func read(ctx context.Context, l Load) *Reads {
	transport := &http.Transport{MaxIdleConnsPerHost: max(1, l.Readers), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	readers := make([]*reader, l.Readers)
	var working sync.WaitGroup
	for i := range readers {
		scheme := map[bool]string{true: "https://", false: "http://"}[l.HTTP == 2]
		readers[i] = &reader{http: http.Client{Transport: transport, Timeout: exchangeTimeout}, address: scheme + l.Address, key: keyOf(l.Seed, customerName(i)),
			events: "?since=" + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}
		working.Go(func() {
			if sleep(ctx, pollEvery*time.Duration(i)/time.Duration(l.Readers)) {
				readers[i].poll(ctx)
			}
		})
	}
	working.Wait()
	all := new(Reads)
	for _, r := range readers {
		all.add(&r.seen)
	}
	return all
}

// reader is a script of a customer that looks what is new and how its hosts are.
type reader struct {
	http    http.Client
	address string
	key     hub.Secret
	events  string // query for the events that it does not know yet
	seen    Reads
}

func (r *reader) poll(ctx context.Context) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		var page struct{ Next string }
		r.get("/api/v1/events"+r.events, &page)
		if page.Next != "" {
			r.events = "?cursor=" + page.Next
		}
		r.get("/api/v1/customer/status", &struct{}{})
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// get asks once. What is under way when the load ends is finished.
func (r *reader) get(path string, answer any) {
	request, err := http.NewRequest(http.MethodGet, r.address+path, nil)
	if err != nil {
		r.seen.refused(noAnswer, 1)
		return
	}
	request.Header.Set("Authorization", "Bearer "+r.key.Reveal())
	began := time.Now()
	res, err := r.http.Do(request)
	if err != nil {
		r.seen.refused(noAnswer, 1)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		r.seen.refused(noAnswer, 1)
	case res.StatusCode != http.StatusOK || json.Unmarshal(body, answer) != nil:
		r.seen.refused(strconv.Itoa(res.StatusCode), 1)
	default:
		r.seen.Answered++
		r.seen.Latency.Add(time.Since(began))
	}
}

// rows answer readers from the database of a run, once it is there. Unlike the hub's
// they look at no backlog: that costs nothing.
type rows struct {
	db    atomic.Pointer[clickhouse.DB]
	fleet *hub.Fleet // set before db
}

var errNoDatabase = &hub.Error{Code: hub.Unavailable, Reason: "clickhouse_away", Message: "there is no database"}

// Events returns events.
func (r *rows) Events(ctx context.Context, q hub.EventQuery) ([]hub.Event, error) {
	if db := r.db.Load(); db != nil {
		return db.Events(ctx, q)
	}
	return nil, errNoDatabase
}

// CustomerStatus returns how a customer's hosts are.
func (r *rows) CustomerStatus(ctx context.Context, customer, after string, limit int) (any, error) {
	if db := r.db.Load(); db != nil {
		hosts, _ := r.fleet.HostsOf(customer, after, limit)
		return db.CustomerStatus(ctx, customer, hosts)
	}
	return nil, errNoDatabase
}

// furnish makes up what there is to read: the fleet, and events.
func furnish(ctx context.Context, at *site, db *database) error {
	defaults := config.Default()
	base := hub.Thresholds{StaleAfter: defaults.Monitor.StaleAfter, DownAfter: defaults.Monitor.DownAfter}
	if err := clickhouse.NewRegister(db.DB).Sync(ctx, at.fleet, time.Now().UTC(), base); err != nil {
		return err
	}
	sql := fmt.Sprintf(`
INSERT INTO hub.events (event_id, type, severity, customer_id, host_id, at, detected_at, source, reason, spool_id, spool_seq)
SELECT leftPad(lower(hex(number)), 32, '0'), 'backup_failed', 'warning', concat('c', leftPad(toString(number %% %d), 3, '0')), '',
    fromUnixTimestamp64Milli(toInt64(%d), 'UTC') - toIntervalSecond(number * 86400 / %d) AS began, began, 'controller', 'made up', '%s', number FROM numbers(%d)`, customers, time.Now().UnixMilli(), knownEvents, hub.SpoolID{1}, knownEvents)
	if _, err := db.engine.Query(ctx, engine.RoleHub, sql); err != nil {
		return fmt.Errorf("make up events: %w", err)
	}
	at.rows.fleet = at.fleet
	at.rows.db.Store(db.DB)
	return nil
}
