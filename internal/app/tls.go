package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"felhom.eu/hub/internal/certs"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

// openTLS reads the certificate of listen; nil where it speaks plain HTTP.
func (a *App) openTLS() (*tls.Config, error) {
	if a.cfg.TLS.CertFile == "" {
		return nil, nil
	}
	var err error
	if a.certs, err = certs.Open(a.cfg.TLS.CertFile, a.cfg.TLS.KeyFile, a.log.With("part", "tls")); err != nil {
		return nil, err
	}
	return a.certs.Config(), nil
}

func (a *App) tlsWarning() string {
	if a.certs == nil {
		return ""
	}
	return a.certs.Warning(time.Now())
}

func (a *App) tlsMetrics() []httpapi.Metric {
	if a.certs == nil {
		return nil
	}
	return []httpapi.Metric{{
		Name: "hub_tls_not_after_seconds", Help: "End of the validity of the certificate of listen, in seconds since 1970.",
		Value: func() float64 { return float64(a.certs.NotAfter().Unix()) },
	}}
}

// checkTLS judges the files as hub serve would at its start, and their age.
func checkTLS(c config.TLS, now time.Time) (string, error) {
	pair, err := certs.Open(c.CertFile, c.KeyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	if w := pair.Warning(now); w != "" {
		return "", &hub.Error{Message: w, Hint: "replace " + c.CertFile + " and its key; a running hub takes them within seconds"}
	}
	return fmt.Sprintf("the certificate is valid until %s", pair.NotAfter().UTC().Format(time.RFC3339)), nil
}
