package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// maxReply bounds what is read of a reply: statements here are small.
const maxReply = 16 << 20

// client opens a connection a request: they are rare, and nothing is left open.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Query runs one statement over HTTP as role and returns the reply's text. It
// is for setting up and for tests; the hub's own traffic is package clickhouse's.
func (e *Engine) Query(ctx context.Context, role Role, statement string) (string, error) {
	return e.query(ctx, e.Endpoint().HTTP, role, statement)
}

func (e *Engine) query(ctx context.Context, address string, role Role, statement string) (string, error) {
	target := url.URL{Scheme: "http", Host: address, Path: "/"}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(statement))
	if err != nil {
		return "", err
	}
	r.Header.Set("X-ClickHouse-User", string(role))
	r.Header.Set("X-ClickHouse-Key", e.Password(role).Reveal())
	reply, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	if err != nil {
		return "", err
	}
	if reply.StatusCode != http.StatusOK {
		return "", fmt.Errorf("engine: %s", strings.TrimSpace(string(text)))
	}
	return string(text), nil
}

// errDead means that the engine answered like one that will not answer again.
var errDead = errors.New("the engine is dead")

// codeAborted is what a ClickHouse that is going down answers everything with.
const codeAborted = "236"

// ping asks whether the engine serves. An error that wraps errDead is final;
// any other may pass.
func ping(ctx context.Context, address string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/ping", nil)
	if err != nil {
		return err
	}
	reply, err := client.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: its port is closed", errDead)
	}
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.Header.Get("X-ClickHouse-Exception-Code") == codeAborted {
		return fmt.Errorf("%w: it answers with code %s", errDead, codeAborted)
	}
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("ping: %s", reply.Status)
	}
	return nil
}
