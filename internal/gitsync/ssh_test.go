package gitsync_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"golang.org/x/crypto/ssh"
)

// serveSSH runs the two git services over SSH for whoever holds the key.
func serveSSH(t *testing.T, client ssh.PublicKey) (addr string, host ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "git" || string(key.Marshal()) != string(client.Marshal()) {
			return nil, ssh.ErrNoAuth
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serveConn(conn, config) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String(), signer.PublicKey()
}

func serveConn(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go func() {
			defer channel.Close()
			for req := range requests {
				_ = req.Reply(req.Type == "exec", nil)
				if req.Type != "exec" {
					continue
				}
				var payload struct{ Command string }
				_ = ssh.Unmarshal(req.Payload, &payload)
				service, path, _ := strings.Cut(payload.Command, " ")
				cmd := exec.Command("git", strings.TrimPrefix(service, "git-"), strings.Trim(path, "'"))
				cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
				stdin, _ := cmd.StdinPipe()
				go func() {
					_, _ = io.Copy(stdin, channel)
					_ = stdin.Close()
				}()
				_ = cmd.Run()
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
				return
			}
		}()
	}
}

func TestSSH(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("one", "a", "1")
	keyFile, public := sshKey(t)
	addr, hostKey := serveSSH(t, public)
	known := filepath.Join(t.TempDir(), "known_hosts")
	line := func(key ssh.PublicKey) string {
		host, port, _ := net.SplitHostPort(addr)
		return "[" + host + "]:" + port + " " + string(ssh.MarshalAuthorizedKey(key))
	}
	r := open(t, "ssh://git@"+addr+o.bare, func(opts *gitsync.Options) {
		opts.CredentialsFile, opts.KnownHostsFile = keyFile, known
	})

	write(t, known, "")
	if _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "is unknown: check its fingerprint") {
		t.Fatalf("unknown host key: %v", err)
	}
	write(t, known, line(public))
	if _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the known one") {
		t.Fatalf("other host key: %v", err)
	}
	write(t, known, line(hostKey))
	if head := fetch(t, r); head != first || content(t, r, head, "a") != "1" {
		t.Fatalf("head %s, want %s", head, first)
	}
	commit, err := r.Publish(t.Context(), adding("b", "2"))
	if err != nil || o.head("main") != commit {
		t.Fatalf("publish: %v", err)
	}

	stranger, _ := sshKey(t)
	r = open(t, "ssh://git@"+addr+o.bare, func(opts *gitsync.Options) {
		opts.CredentialsFile, opts.KnownHostsFile = stranger, known
	})
	if _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
		t.Fatalf("a stranger's key: %v", err)
	}
}
