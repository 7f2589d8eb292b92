package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// site is something that takes reports, and how it ends.
type site struct {
	address string
	spool   *spool.Spool // nil: nothing is kept
	stop    func() error

	// Of the hub's own path.
	fleet   *hub.Fleet
	reports *ingest.Acceptor
	rows    *rows
}

// quiet is the log: what goes wrong shows in the counts.
var quiet = slog.New(slog.DiscardHandler)

const stopWithin = 10 * time.Second

// bareSite is a handler that reads the body and replies, and nothing else.
func bareSite(version int) (*site, error) {
	envelope := wire.Envelope(config.Default().Ingest.PollInterval, false)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{address: listener.Addr().String()}
	secure, err := certificate(version)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	server := &http.Server{ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelDebug), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			_, _ = w.Write(envelope) // the client may be gone
		}
	})}
	go func() { _ = server.Serve(listener) }() // it ends with the close below
	s.stop = server.Close
	return s, nil
}

// hubSite is the hub's own path. Without a folder nothing is kept: reports are
// decoded and their keys looked up, and that is all.
func hubSite(l Load, dir string) (*site, error) {
	hosts, err := fleet(l.Seed, max(l.Hosts, l.Connections))
	if err != nil {
		return nil, err
	}
	secure, err := certificate(l.HTTP)
	if err != nil {
		return nil, err
	}
	s := &site{fleet: hosts, rows: new(rows)}
	o := ingest.Options{Fleets: inForce{hosts}, Spool: new(nowhere), Logger: quiet}
	defaults := config.Default()
	o.PollInterval = defaults.Ingest.PollInterval
	o.HostRate, o.CustomerRate = float64(defaults.Ingest.HostRate), float64(defaults.Ingest.CustomerRate)
	if dir != "" {
		s.spool, err = spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), MaxBytes: spoolBytes, Logger: quiet})
		if err != nil {
			return nil, err
		}
		o.Spool = s.spool
	}
	s.reports = ingest.New(o)
	server, err := httpapi.New(httpapi.Options{
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", TLS: secure, Reports: s.reports, Reading: s.rows,
		Ready: func() (bool, any) { return true, nil }, FleetStatus: func() any { return nil },
		MaxConnections: defaults.Ingest.MaxConnections, MaxInFlightBytes: int64(defaults.Ingest.MaxInFlightBytes), Logger: quiet,
	})
	if err != nil {
		return nil, errors.Join(err, s.close(nil))
	}
	server.Start()
	s.address = server.Addr()
	s.stop = func() error { return s.close(server) }
	return s, nil
}

// spoolBytes is more than any run leaves: what is measured is not the refusal.
const spoolBytes = 64 << 30

func (s *site) close(server *httpapi.Server) (err error) {
	if server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		err = server.Stop(ctx)
	}
	if s.spool != nil {
		err = errors.Join(err, s.spool.Close())
	}
	return err
}

// inForce is a fleet that never changes.
type inForce struct{ fleet *hub.Fleet }

func (f inForce) Current() *hub.Fleet { return f.fleet }

// nowhere stands for the spool where it is to cost nothing.
type nowhere struct{ seq atomic.Uint64 }

// Append forgets the records.
func (n *nowhere) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	receipts := make([]hub.Receipt, len(records))
	for i := range receipts {
		receipts[i] = hub.Receipt{Position: hub.Position{Seq: n.seq.Add(1)}, ReceivedAt: time.Now()}
	}
	return receipts, nil
}

// certificate returns TLS with a certificate that nobody keeps, for HTTP/2; nil
// for HTTP/1.1, which is measured in the clear.
func certificate(version int) (*tls.Config, error) {
	if version != 2 {
		return nil, nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		NextProtos:   []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
	}, nil
}

// inFolder calls f with a new folder in dir, which is gone afterwards.
func inFolder(dir string, f func(folder string) error) error {
	folder, err := os.MkdirTemp(dir, "hub-bench-")
	if err != nil {
		return err
	}
	return errors.Join(f(folder), os.RemoveAll(folder))
}
