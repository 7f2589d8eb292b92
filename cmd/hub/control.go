package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/hub"
)

// maxControlReply is more than the status of any fleet.
const maxControlReply = 64 << 20

// askHub sends a request to the hub that runs on the configuration's data_dir
// and returns the JSON that it answers. body is sent as JSON; nil: none.
func askHub(ctx context.Context, cfg *config.Config, method, path string, body any) ([]byte, error) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, sent)
	if err != nil {
		return nil, err
	}
	client := control.Client(cfg.DataDir)
	defer client.CloseIdleConnections()
	res, err := client.Do(r)
	if failed := new(url.Error); errors.As(err, &failed) {
		return nil, failed.Err // the URL is none of the operator's
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(res.Body, maxControlReply))
	if err != nil {
		return nil, fmt.Errorf("the hub's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, refusalOf(res.StatusCode, reply)
	}
	return reply, nil
}

// refusalOf is the error that the hub answered with.
func refusalOf(status int, reply []byte) error {
	var problem struct{ Detail, Hint string }
	if err := json.Unmarshal(reply, &problem); err != nil || problem.Detail == "" {
		return fmt.Errorf("the hub answered %d", status)
	}
	return &hub.Error{Message: problem.Detail, Hint: problem.Hint}
}

// printCompact prints JSON as one line.
func printCompact(w io.Writer, text []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}
