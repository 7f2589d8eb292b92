// Package certs holds a TLS certificate that is replaced on disk while the hub
// runs: new connections get the new one within seconds, and a pair of files that
// cannot be used never takes the place of the last good one.
package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/hub"
)

const (
	lookEvery = time.Second
	maxBytes  = 1 << 20
	nearEnd   = 14 * 24 * time.Hour
)

// Pair is a certificate chain with its key, read from two PEM files. Its methods
// may be called from many goroutines.
type Pair struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	seen    [2][]byte // what lay in the files when they were last looked at
	problem string    // why that is not in use; "" when it is
	doubted string    // a problem seen once: the files may be in the midst of being replaced
}

// Open reads the files, which must fit each other.
func Open(certFile, keyFile string, log *slog.Logger) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log}
	files, err := p.read()
	if err != nil {
		return nil, err
	}
	cert, err := parse(files)
	if err != nil {
		return nil, p.unusable(err)
	}
	p.seen = files
	p.current.Store(cert)
	return p, nil
}

// Config serves the newest good pair to each new connection.
func (p *Pair) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current.Load(), nil },
	}
}

// NotAfter is the end of the served certificate's validity.
func (p *Pair) NotAfter() time.Time { return p.current.Load().Leaf.NotAfter }

// Warning says what an operator should do about the pair; "" when nothing.
func (p *Pair) Warning(now time.Time) string {
	p.mu.Lock()
	problem := p.problem
	p.mu.Unlock()
	leaf := p.current.Load().Leaf
	near := min(nearEnd, leaf.NotAfter.Sub(leaf.NotBefore)/4)
	switch end := leaf.NotAfter.UTC().Format(time.RFC3339); {
	case problem != "":
		return problem + "; the last good certificate is served, which ends at " + end
	case now.After(leaf.NotAfter):
		return "the TLS certificate has expired at " + end
	case now.Add(near).After(leaf.NotAfter):
		return "the TLS certificate expires at " + end
	}
	return ""
}

// Run looks at the files until ctx ends.
func (p *Pair) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.look()
		case <-ctx.Done():
			return
		}
	}
}

// look takes files that changed. Each problem is logged once, and only where two
// looks in a row find it: the two files are not replaced in the same instant.
func (p *Pair) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	files, err := p.read()
	if err == nil && bytes.Equal(files[0], p.seen[0]) && bytes.Equal(files[1], p.seen[1]) {
		p.problem, p.doubted = "", ""
		return
	}
	var cert *tls.Certificate
	if err == nil {
		if cert, err = parse(files); err == nil && time.Now().After(cert.Leaf.NotAfter) && time.Now().Before(p.NotAfter()) {
			err = fmt.Errorf("the certificate has expired at %s", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		if err != nil {
			err = p.unusable(err)
		}
	}
	if err != nil {
		p.doubt(err.Error())
		return
	}
	p.seen, p.problem, p.doubted = files, "", ""
	p.current.Store(cert)
	p.log.Info("the TLS certificate was replaced", "file", p.certFile, "not_after", cert.Leaf.NotAfter.UTC())
}

func (p *Pair) doubt(problem string) {
	if problem == p.doubted && problem != p.problem {
		p.problem = problem
		p.log.Error("the TLS files cannot be used; the last good certificate is served", "error", problem, "not_after", p.NotAfter().UTC())
	}
	p.doubted = problem
}

func (p *Pair) unusable(err error) error {
	return &hub.Error{Message: fmt.Sprintf("tls: %s and %s cannot be used", p.certFile, p.keyFile), Cause: err,
		Hint: "both are PEM, the certificate with its chain, the key that belongs to it"}
}

// read returns the content of both files. A key that others may read is refused.
func (p *Pair) read() (files [2][]byte, err error) {
	info, err := os.Stat(p.keyFile)
	if err != nil {
		return files, fmt.Errorf("tls.key_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return files, fmt.Errorf("tls.key_file: %s may be read by others: chmod 600 %[1]s", p.keyFile)
	}
	cert, certErr := readFile(p.certFile)
	key, keyErr := readFile(p.keyFile)
	return [2][]byte{cert, key}, cmp.Or(certErr, keyErr)
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes))
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return data, nil
}

func parse(files [2][]byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return nil, err
	}
	return &cert, nil
}
