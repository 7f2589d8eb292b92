package gitsync_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

// serve serves o at /fleet.git by git http-backend behind TLS and basic
// authentication; user:password are "hub" and "t0ken", or the token's default user.
// It counts the packs that were asked for.
func serve(t *testing.T, o *origin) (url, caFile string, packs *atomic.Int32) {
	t.Helper()
	git(t, o.bare, "config", "http.receivepack", "true")
	backend := &cgi.Handler{
		Path: filepath.Join(git(t, o.bare, "--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Dir(o.bare), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=" + os.DevNull},
		Root: "/",
	}
	packs = new(atomic.Int32)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/elsewhere"):
			http.Redirect(w, r, "https://localhost:1"+r.URL.RequestURI(), http.StatusMovedPermanently)
		case password != "t0ken" || user != "hub" && user != "x-access-token":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			if strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
				packs.Add(1)
			}
			r.URL.Path = strings.Replace(r.URL.Path, "/fleet.git", "/"+filepath.Base(o.bare), 1)
			backend.ServeHTTP(w, r)
		}
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that the tests make fail
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	write(t, caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return server.URL, caFile, packs
}

func TestHTTPS(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	url, ca, packs := serve(t, o)
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "t0ken\n")
	r := open(t, url+"/fleet.git", func(opts *gitsync.Options) { opts.CAFile, opts.CredentialsFile = ca, token })

	fetch(t, r)
	fetch(t, r)
	if n := packs.Load(); n != 1 {
		t.Errorf("%d packs for two fetches of the same head", n)
	}
	second := o.commit("two", "a", "2")
	if head := fetch(t, r); head != second || content(t, r, head, "a") != "2" {
		t.Errorf("head %s, want %s", head, second)
	}
	write(t, token, "hub:t0ken") // replaced while we run
	commit, err := r.Publish(t.Context(), adding("b", "3"))
	if err != nil || o.head("main") != commit {
		t.Fatalf("publish: %v", err)
	}
	if fetch(t, r) != commit {
		t.Error("the mirror does not follow its own push")
	}
	if n := packs.Load(); n != 2 {
		t.Errorf("%d packs, want one for each commit of others", n)
	}

	o.hook("pre-receive", "echo 'protected branch' >&2\nexit 1\n")
	if _, err = r.Publish(t.Context(), adding("c", "4")); hub.ReasonOf(err) != "push_refused" || !strings.Contains(err.Error(), "protected branch") {
		t.Errorf("refused push: %v", err)
	}

	write(t, token, "wrong")
	if _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "fleet.credentials_file") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong token: %v", err)
	}
}

func TestHTTPSRefusals(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	url, ca, _ := serve(t, o)
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "t0ken")

	moved := open(t, url+"/elsewhere.git", func(opts *gitsync.Options) { opts.CAFile, opts.CredentialsFile = ca, token })
	if _, err := moved.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "redirects to another host, localhost:1") {
		t.Errorf("redirect: %v", err)
	}
	untrusted := open(t, url+"/fleet.git", func(opts *gitsync.Options) { opts.CredentialsFile = token })
	if _, err := untrusted.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown authority: %v", err)
	}
	write(t, ca, "not PEM")
	if _, err := gitsync.Open(gitsync.Options{URL: url, Dir: t.TempDir(), CAFile: ca}); err == nil || !strings.Contains(err.Error(), "fleet.ca_file") {
		t.Errorf("CA file: %v", err)
	}
}
