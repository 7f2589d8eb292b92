package httpapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/certs"
	"felhom.eu/hub/internal/logtest"
)

// issue writes a new certificate of 127.0.0.1 with this name and its key.
func issue(t *testing.T, certFile, keyFile, name string, notAfter time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-90 * 24 * time.Hour), NotAfter: notAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// secured posts a report on a new connection and returns the reply's protocol,
// its status and the name on the certificate that was shown.
func (f *fixture) secured(t *testing.T, n int, http2 bool) (proto string, status int, name string) {
	t.Helper()
	// The test is about which certificate is shown, not about who signed it.
	transport := &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequest(http.MethodPost, "https://"+f.Addr()+"/api/v1/host-report", bytes.NewReader(report(goldenHost, n)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.keys["host/"+goldenHost].Reveal())
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.Proto, res.StatusCode, res.TLS.PeerCertificates[0].Subject.CommonName
}

func TestACertificateIsReplacedWhileTheHubRuns(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	year := time.Now().Add(365 * 24 * time.Hour)
	issue(t, certFile, keyFile, "first", year)
	log := new(logtest.Buffer)
	pair, err := certs.Open(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); pair.Run(ctx) }()
	defer func() { cancel(); <-done }()
	f := serve(t, func(s *settings) { s.http.TLS = pair.Config() })

	n := 0
	shown := func(want string) bool {
		for http2, proto := range map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"} {
			n++
			got, status, name := f.secured(t, n, http2)
			if got != proto || status != 200 {
				t.Fatalf("%s %d; want %s 200", got, status, proto)
			}
			if name != want {
				return false
			}
		}
		return true
	}
	if !shown("first") || pair.Warning(time.Now()) != "" {
		t.Fatalf("another certificate at first; warning %q", pair.Warning(time.Now()))
	}
	issue(t, certFile, keyFile, "second", year)
	eventually(t, "the second is shown", func() bool { return shown("second") })

	// A certificate without its key, then one that has expired: neither is taken.
	issue(t, certFile, filepath.Join(dir, "lost.pem"), "third", year)
	eventually(t, "it is complained of", func() bool { return strings.Contains(pair.Warning(time.Now()), "cannot be used") })
	issue(t, certFile, keyFile, "fourth", time.Now().Add(-time.Hour))
	eventually(t, "it is complained of", func() bool { return strings.Contains(pair.Warning(time.Now()), "has expired") })
	time.Sleep(2500 * time.Millisecond) // two more looks: they say nothing new
	if !shown("second") || strings.Count(log.String(), "level=ERROR") != 2 {
		t.Errorf("the last good one is not shown, or not one line for each:\n%s", log)
	}

	issue(t, certFile, keyFile, "fifth", time.Now().Add(5*24*time.Hour))
	eventually(t, "the fifth is shown", func() bool { return shown("fifth") })
	if w := pair.Warning(time.Now()); !strings.Contains(w, "expires at") {
		t.Errorf("no warning five days before the end: %q", w)
	}
	if err := os.Chmod(keyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := certs.Open(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}

// A proxy that ends TLS may speak HTTP/2 to the hub in the clear.
func TestUnencryptedHTTP2(t *testing.T) {
	f := serve(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	for want, q := range map[int]string{200: f.keys["fleet"].Reveal(), 401: "x"} {
		r, err := http.NewRequest(http.MethodPost, "http://"+f.Addr()+"/api/v1/host-report", bytes.NewReader(report(goldenHost, 1)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+q)
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want || res.ProtoMajor != 2 {
			t.Errorf("%d %s; want %d", res.StatusCode, res.Proto, want)
		}
	}
}
