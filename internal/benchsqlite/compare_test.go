// Package benchsqlite measures the design that the hub replaces beside the hub:
// the same HTTP side, the same checks and the same reports, once with the spool
// behind them and once with one SQLite transaction a report. Run it with
// make bench-sqlite.
//
// It is test files only, and a module of its own, so that nothing of it is part
// of the hub.
package benchsqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
	"felhom.eu/hub/internal/simulate"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

const (
	clients        = 128
	hostsOfAClient = 8
	guestsOfAHost  = 12
	rounds         = 3
	roundTime      = 4 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// TestCompare prints reports a second of both, alternating, and their ratio.
// Every report is on the disk, synced, before its reply.
func TestCompare(t *testing.T) {
	var hubTotal, sqliteTotal float64
	fmt.Printf("%d connections, %d hosts, %d guests a report, %s a round\n", clients, clients*hostsOfAClient, guestsOfAHost, roundTime)
	for round := range rounds {
		h := measure(t, openSpool(t))
		s := measure(t, openSQLite(t))
		fmt.Printf("round %d: hub %8.0f reports/s, SQLite %8.0f reports/s, ratio %.1f\n", round+1, h, s, h/s)
		hubTotal += h
		sqliteTotal += s
	}
	fmt.Printf("mean:    hub %8.0f reports/s, SQLite %8.0f reports/s, ratio %.1f\n", hubTotal/rounds, sqliteTotal/rounds, hubTotal/sqliteTotal)
}

func openSpool(t *testing.T) ingest.Spool {
	s, err := spool.Open(spool.Options{Dir: t.TempDir(), MaxBytes: 8 << 30, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// database is the old hub's store.
type database struct {
	db                      *sql.DB
	report, lastSeen, guest *sql.Stmt
	id                      hub.SpoolID
}

const schema = `
CREATE TABLE hosts (host_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, last_seen INTEGER NOT NULL);
CREATE TABLE reports (id INTEGER PRIMARY KEY, host_id TEXT NOT NULL, customer_id TEXT NOT NULL, key_id TEXT NOT NULL,
	received_at INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX reports_by_host ON reports (host_id, received_at);
CREATE TABLE guests (host_id TEXT NOT NULL, vmid INTEGER NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
	controller_version TEXT NOT NULL, last_seen INTEGER NOT NULL, PRIMARY KEY (host_id, vmid)) WITHOUT ROWID;`

func openSQLite(t *testing.T) ingest.Spool {
	path := filepath.Join(t.TempDir(), "hub.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1) // SQLite has one writer: waiting here is cheaper than SQLITE_BUSY
	if _, err := db.Exec(schema); err != nil {
		t.Fatal(err)
	}
	var mode string
	var synchronous int
	if err := db.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Fatal(mode, err)
	}
	if err := db.QueryRow("PRAGMA synchronous").Scan(&synchronous); err != nil || synchronous != 2 {
		t.Fatal(synchronous, err)
	}
	prepare := func(text string) *sql.Stmt {
		stmt, err := db.Prepare(text)
		if err != nil {
			t.Fatal(err)
		}
		return stmt
	}
	return &database{
		db:       db,
		report:   prepare("INSERT INTO reports (host_id, customer_id, key_id, received_at, body) VALUES (?, ?, ?, ?, ?)"),
		lastSeen: prepare("INSERT INTO hosts VALUES (?, ?, ?) ON CONFLICT (host_id) DO UPDATE SET customer_id = excluded.customer_id, last_seen = excluded.last_seen"),
		guest: prepare(`INSERT INTO guests VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (host_id, vmid) DO UPDATE SET
			name = excluded.name, status = excluded.status, controller_version = excluded.controller_version, last_seen = excluded.last_seen`),
	}
}

// Append stores each report in a transaction of its own.
func (d *database) Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	receipts := make([]hub.Receipt, len(records))
	for i, r := range records {
		now := time.Now()
		report, err := wire.DecodeReport(r.Body, now)
		if err != nil {
			return nil, err
		}
		seq, err := d.store(ctx, r, report, now)
		if err != nil {
			return nil, err
		}
		receipts[i] = hub.Receipt{Position: hub.Position{SpoolID: d.id, Seq: uint64(seq)}, ReceivedAt: now}
	}
	return receipts, nil
}

func (d *database) store(ctx context.Context, r spool.Record, report *hub.Report, now time.Time) (int64, error) {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	at := now.UnixMilli()
	result, err := tx.StmtContext(ctx, d.report).ExecContext(ctx, r.HostID, r.CustomerID, r.KeyID, at, r.Body)
	if err != nil {
		return 0, err
	}
	if _, err := tx.StmtContext(ctx, d.lastSeen).ExecContext(ctx, r.HostID, r.CustomerID, at); err != nil {
		return 0, err
	}
	guest := tx.StmtContext(ctx, d.guest)
	for _, g := range report.Guests {
		if _, err := guest.ExecContext(ctx, r.HostID, g.VMID, g.Name, g.Status, g.ControllerVersion, at); err != nil {
			return 0, err
		}
	}
	seq, err := result.LastInsertId()
	if err != nil {
		return 0, err
	}
	return seq, tx.Commit()
}

// fleet is one customer with a host for every simulated agent.
type fleet struct{ *hub.Fleet }

func (f fleet) Current() *hub.Fleet { return f.Fleet }

func hostID(client, n int) string { return fmt.Sprintf("acme-%08x", client*hostsOfAClient+n) }

func newFleet(t *testing.T) (fleet, hub.Secret) {
	key := hub.NewKey()
	digest, err := hub.DigestKey(key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	spec := hub.FleetSpec{
		Keys:      []hub.Key{{ID: "g1", Owner: hub.FleetOwner(), Digest: digest}},
		Customers: []*hub.Customer{{Name: "acme"}},
	}
	for client := range clients {
		for n := range hostsOfAClient {
			spec.Hosts = append(spec.Hosts, &hub.Host{ID: hostID(client, n), Customer: "acme", Lifecycle: hub.Active})
		}
	}
	f, err := hub.NewFleet(spec)
	if err != nil {
		t.Fatal(err)
	}
	return fleet{f}, key
}

// measure returns reports a second that were acknowledged with this store
// behind the hub's HTTP side.
func measure(t *testing.T, store ingest.Spool) float64 {
	fleet, key := newFleet(t)
	acceptor := ingest.New(ingest.Options{Fleets: fleet, Spool: store, PollInterval: 15 * time.Minute})
	server, err := httpapi.New(httpapi.Options{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Reports: acceptor,
		Ready: func() (bool, any) { return true, nil }, FleetStatus: func() any { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer func() {
		transport.CloseIdleConnections()
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var acknowledged atomic.Int64
	var running sync.WaitGroup
	start := time.Now()
	for client := range clients {
		running.Go(func() {
			n, err := post(&http.Client{Transport: transport}, "http://"+server.Addr()+"/api/v1/host-report", key, client, start.Add(roundTime))
			acknowledged.Add(n)
			if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	return float64(acknowledged.Load()) / time.Since(start).Seconds()
}

// post sends reports of a client's hosts until end, and counts what was
// acknowledged.
func post(client *http.Client, url string, key hub.Secret, number int, end time.Time) (n int64, err error) {
	var agents []*simulate.Agent
	for i := range hostsOfAClient {
		agents = append(agents, simulate.NewAgent(uint64(number), hostID(number, i), guestsOfAHost))
	}
	for at := time.Now(); time.Now().Before(end); n++ {
		at = at.Add(time.Minute)
		body := agents[int(n)%len(agents)].AppendReport(nil, at)
		request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return n, err
		}
		request.Header.Set("Authorization", "Bearer "+key.Reveal())
		reply, err := client.Do(request)
		if err != nil {
			return n, err
		}
		_, _ = io.Copy(io.Discard, reply.Body)
		_ = reply.Body.Close()
		if reply.StatusCode != http.StatusOK {
			return n, fmt.Errorf("status %d", reply.StatusCode)
		}
	}
	return n, nil
}
