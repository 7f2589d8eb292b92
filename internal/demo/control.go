package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// Control silences ("stop") or wakes ("start") the agent of one host in the
// demo that runs in dir.
func Control(ctx context.Context, dir, action, hostID string) error {
	address, release, err := folder(dir).socket()
	if err != nil {
		return noDemo(dir, err)
	}
	defer release()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", address)
		},
	}}
	at := "http://demo/agents/" + url.PathEscape(hostID) + "/" + url.PathEscape(action)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, nil)
	if err != nil {
		return err
	}
	reply, err := client.Do(request)
	if err != nil {
		return noDemo(dir, err)
	}
	defer reply.Body.Close()
	if reply.StatusCode == http.StatusNoContent {
		return nil
	}
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		return err
	}
	return errors.New(strings.TrimSpace(string(text)))
}

// noDemo puts errors that mean it into words.
func noDemo(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no demo runs in %s: start one with hub demo --dir %s", dir, quote(dir))
	}
	return err
}

// maxSocketPath is what fits into the address of a Unix socket everywhere.
const maxSocketPath = 100

// socket returns an address for the control socket. A path that is too long for
// one goes by the descriptor of the folder, which is open until release.
func (f folder) socket() (address string, release func(), err error) {
	if path := f.path(socketFile); len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(string(f))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile), func() { dir.Close() }, nil
}

// control takes the folder for this demo and serves its socket, until the
// function it returns is called. steer does what is asked.
func (f folder) control(steer func(action, hostID string) error) (end func(), err error) {
	address, release, err := f.socket()
	if err != nil {
		return nil, err
	}
	listener, err := f.listen(address)
	if err != nil {
		release()
		return nil, err
	}
	routes := http.NewServeMux()
	handle := func(w http.ResponseWriter, r *http.Request) {
		action := r.PathValue("action")
		if action != "stop" && action != "start" {
			http.Error(w, "an agent can be told stop or start, not "+action, http.StatusNotFound)
		} else if err := steer(action, r.PathValue("host")); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
	}
	routes.HandleFunc("POST /agents/{host}/{action}", handle)
	server := &http.Server{Handler: routes, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }() // until Close
	return func() { _ = server.Close(); release() }, nil
}

// listen binds the socket; one that nobody answers at was left by a demo that
// was killed.
func (f folder) listen(address string) (net.Listener, error) {
	listener, err := net.Listen("unix", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		if conn, err := net.Dial("unix", address); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("another demo runs in %s: stop it, or name another folder with --dir", f)
		}
		if err := os.Remove(f.path(socketFile)); err != nil {
			return nil, err
		}
		listener, err = net.Listen("unix", address)
	}
	if err != nil {
		return nil, fmt.Errorf("the demo's control socket: %w", err)
	}
	return listener, os.Chmod(f.path(socketFile), 0o600)
}
