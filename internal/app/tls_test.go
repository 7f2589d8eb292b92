package app_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine/enginetest"
)

func TestListenSpeaksTLS(t *testing.T) {
	lender := httptest.NewTLSServer(http.NotFoundHandler()) // its certificate is for tests
	pair, authority := lender.TLS.Certificates[0], lender.Certificate()
	lender.Close()
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	host := s.enroll("acme", false)
	s.push("host")
	s.cfg.TLS = config.TLS{CertFile: filepath.Join(s.dir, "cert.pem"), KeyFile: filepath.Join(s.dir, "key.pem")}
	for file, block := range map[string]*pem.Block{
		s.cfg.TLS.CertFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, s.cfg.TLS.KeyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := s.startReady()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(authority)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, "https://"+r.Addr()+"/api/v1/host-report", strings.NewReader(reportBody(host.HostID, 1)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+host.APIKey.Reveal())
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Errorf("%s %d; want HTTP/2 and 200", res.Proto, res.StatusCode)
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\nhub_tls_not_after_seconds ") {
		t.Error("the certificate's end is no metric")
	}
	found := false
	for _, f := range app.Check(t.Context(), s.cfg, enginetest.Launcher(t)) {
		found = found || f.Area == "tls" && f.OK && strings.Contains(f.Message, "valid until")
	}
	if !found {
		t.Error("hub check says nothing of the certificate")
	}
}
