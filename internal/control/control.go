// Package control is the socket in data_dir over which commands reach the hub
// that runs on it: who may open the socket is the operator, and needs no key.
//
// The socket is for its owner alone, in a folder that is for its owner alone. A
// hub that was killed leaves it behind; the next one clears it away, but never
// one on which somebody still answers.
package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// name is the socket's in data_dir.
const name = "control.sock"

// longest is what the kernel takes as a socket's address: sun_path of unix(7) has
// 108 bytes, the last of which is 0.
const longest = 107

// Path returns where the socket of a data directory is.
func Path(dataDir string) string { return filepath.Join(dataDir, name) }

// Listen makes the socket, mode 0600. Closing the listener removes it.
func Listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("control socket: %s may be entered by others (mode %04o): chmod 700 %[1]s", dir, mode)
	}
	l := &listener{}
	err = addressed(path, func(address string) error {
		if err := clearStale(path, address); err != nil {
			return err
		}
		l.UnixListener, err = net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would go by the address, which may be another by then
	l.remove = sync.OnceFunc(func() { _ = os.Remove(path) })
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

type listener struct {
	*net.UnixListener
	remove func()
}

// Close removes the socket first, so that nobody finds it and nobody behind it.
func (l *listener) Close() error {
	l.remove()
	return l.UnixListener.Close()
}

// clearStale removes a socket that nobody listens on.
func clearStale(path, address string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("it is no socket: move it away")
	}
	conn, err := net.DialTimeout("unix", address, time.Second)
	if err == nil {
		_ = conn.Close()
		return errors.New("another hub listens on it: stop that one, or choose another data_dir")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// addressed calls use with an address of the socket. A path that is too long for
// one is shortened by way of its open folder.
func addressed(path string, use func(address string) error) error {
	if len(path) <= longest {
		return use(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return use("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path))
}

// Client returns a client whose requests, to whatever host, go to the hub that
// runs on a data directory. Close its idle connections.
func Client(dataDir string) *http.Client {
	dial := func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = addressed(Path(dataDir), func(address string) error {
			conn, err = new(net.Dialer).DialContext(ctx, "unix", address)
			return err
		})
		return conn, explain(dataDir, err)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}
}

// explain says what an operator can do when the hub cannot be reached.
func explain(dataDir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no hub runs on %s: start it with hub serve, or name its configuration with --config", dataDir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the hub on %s may be asked only by the user it runs as: try sudo -u, or root", dataDir)
	}
	return err
}
