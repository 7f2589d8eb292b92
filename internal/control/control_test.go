package control_test

import (
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/control"
)

// dataDir is a private folder; deep makes its path longer than a socket's
// address may be.
func dataDir(t *testing.T, deep bool) string {
	t.Helper()
	dir := t.TempDir()
	if deep {
		dir = filepath.Join(dir, strings.Repeat("long/", 30)+"data")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func listen(t *testing.T, dir string) net.Listener {
	t.Helper()
	l, err := control.Listen(control.Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func get(dir string) (string, error) {
	client := control.Client(dir)
	defer client.CloseIdleConnections()
	res, err := client.Get("http://hub/here")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func TestSocket(t *testing.T) {
	for name, deep := range map[string]bool{"short path": false, "path longer than an address": true} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t, deep)
			l := listen(t, dir)
			info, err := os.Stat(control.Path(dir))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %s, want a socket of 0600", info.Mode())
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })}
			go func() { _ = server.Serve(l) }()
			if body, err := get(dir); err != nil || body != "/here" {
				t.Errorf("%q, %v", body, err)
			}
			if _, err := control.Listen(control.Path(dir)); err == nil || !strings.Contains(err.Error(), "another hub listens") {
				t.Errorf("a second one: %v", err)
			}
			if body, err := get(dir); err != nil || body != "/here" {
				t.Errorf("after the second one: %q, %v", body, err)
			}
			_ = server.Close()
			if _, err := os.Lstat(control.Path(dir)); !os.IsNotExist(err) {
				t.Errorf("it stays behind: %v", err)
			}
			if _, err := get(dir); err == nil || !strings.Contains(err.Error(), "no hub runs on "+dir+": start it with hub serve, or name its configuration with --config") {
				t.Errorf("nobody there: %v", err)
			}
		})
	}
}

// A hub that was killed leaves its socket behind.
func TestStaleSocketIsReplaced(t *testing.T) {
	dir := dataDir(t, false)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: control.Path(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := get(dir); err == nil || !strings.Contains(err.Error(), "no hub runs on") {
		t.Errorf("nobody listens: %v", err)
	}
	listen(t, dir)
}

func TestRefusals(t *testing.T) {
	t.Run("a file of that name", func(t *testing.T) {
		dir := dataDir(t, false)
		if err := os.WriteFile(control.Path(dir), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := control.Listen(control.Path(dir)); err == nil || !strings.Contains(err.Error(), "it is no socket") {
			t.Errorf("%v", err)
		}
		if text, err := os.ReadFile(control.Path(dir)); err != nil || string(text) != "mine" {
			t.Errorf("the file is touched: %q, %v", text, err)
		}
	})
	t.Run("a folder that others may enter", func(t *testing.T) {
		dir := dataDir(t, false)
		for _, mode := range []fs.FileMode{0o710, 0o701, 0o755, 0o770} {
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := control.Listen(control.Path(dir)); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
				t.Errorf("%04o: %v", mode, err)
			}
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if _, err := control.Listen(filepath.Join(t.TempDir(), "gone", "control.sock")); err == nil {
			t.Error("no error")
		}
	})
}
