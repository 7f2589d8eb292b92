package gitsync_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/gitsync"
)

// sshd returns where OpenSSH's server is; it wants to be called by that. Debian
// has it outside of the PATH of most users.
func sshd() (path string, installed bool) {
	for _, name := range []string{"sshd", "/usr/sbin/sshd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
	}
	return "", false
}

// serveSSHD runs OpenSSH's server in the foreground for whoever holds the key,
// and returns its address and the line of a known_hosts file for it.
func serveSSHD(t *testing.T, sshd, public string) (addr, known string) {
	t.Helper()
	if os.Geteuid() == 0 { // for root it demands a folder that its service would have made
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	hostKey, hostPublic := keyPair(t)
	write(t, filepath.Join(dir, "authorized_keys"), public+"\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_ = l.Close()
	host, port, _ := net.SplitHostPort(addr)
	config := filepath.Join(dir, "sshd_config")
	write(t, config, fmt.Sprintf(`Port %s
ListenAddress %s
HostKey %s
AuthorizedKeysFile %s/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
`, port, host, hostKey, dir))
	var said bytes.Buffer
	cmd := exec.Command(sshd, "-D", "-e", "-f", config)
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children end with it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	for range 200 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return addr, fmt.Sprintf("[%s]:%s %s\n", host, port, hostPublic)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("sshd does not answer")
	return "", ""
}

// The real server, where it is installed, as .ci/run sees to; TestSSH needs none.
func TestOpenSSHServer(t *testing.T) {
	server, installed := sshd()
	if !installed {
		t.Log("openssh-server is not installed: SSH is tested with a server of our own only")
		return
	}
	o := newOrigin(t)
	first := o.commit("one", "a", "1")
	key, public := keyPair(t)
	addr, hostLine := serveSSHD(t, server, public)
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, hostLine)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	url := "ssh://" + me.Username + "@" + addr + o.bare
	r := open(t, url, func(opts *gitsync.Options) { opts.CredentialsFile, opts.KnownHostsFile = key, known })
	if head := fetch(t, r); head != first || content(t, r, head, "a") != "1" {
		t.Fatalf("head %s, want %s", head, first)
	}
	second := o.commit("two", "a", "2")
	if head := fetch(t, r); head != second || content(t, r, head, "a") != "2" {
		t.Fatalf("head %s, want %s", head, second)
	}
	commit, err := r.Publish(t.Context(), adding("b", "3"))
	if err != nil || o.head("main") != commit {
		t.Fatalf("publish: %v", err)
	}

	stranger, _ := keyPair(t)
	r = open(t, url, func(opts *gitsync.Options) { opts.CredentialsFile, opts.KnownHostsFile = stranger, known })
	if _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
		t.Errorf("a stranger's key: %v", err)
	}
	_, other := keyPair(t)
	write(t, known, strings.Join(append(strings.Fields(hostLine)[:1], other), " "))
	r = open(t, url, func(opts *gitsync.Options) { opts.CredentialsFile, opts.KnownHostsFile = key, known })
	if _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the known one") {
		t.Errorf("another host key: %v", err)
	}
}
