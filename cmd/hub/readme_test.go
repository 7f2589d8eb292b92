package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"felhom.eu/hub/internal/engine/enginetest"
)

// TestReadmeTour runs the README's tour as it stands there, with free ports in
// place of the usual ones.
func TestReadmeTour(t *testing.T) {
	enginetest.Need(t)
	bin := hubDir(t)
	data, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tour, found := strings.Cut(string(data), "## A tour")
	tour, _, ended := strings.Cut(tour, "\n## ")
	if !found || !ended {
		t.Fatal("the README has no tour")
	}
	script := "set -e\n"
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(tour, -1) {
		script += block[1]
	}
	listen, admin := freeAddress(t), freeAddress(t)
	script = strings.NewReplacer("127.0.0.1:8080", listen, "127.0.0.1:8081", admin).Replace(script)

	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HUB_LISTEN="+listen, "HUB_ADMIN_LISTEN="+admin,
		"HUB_CLICKHOUSE_EMBEDDED_HTTP_PORT=0",
		"GIT_AUTHOR_NAME=Tour", "GIT_AUTHOR_EMAIL=tour@localhost", "GIT_COMMITTER_NAME=Tour", "GIT_COMMITTER_EMAIL=tour@localhost")
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(cmd.Dir, "hub.log"))
		t.Fatalf("%v\n%s\n%s", err, out, log)
	}
	for _, want := range []string{`│ ok    │        12.5 │        37.5 │             1 │`, `│ web  │ running │`,
		`{"status":"ok","blocked":false}`, `│ ok    │ healthy │        8.25 │`, `│ nextcloud │ running │ 31.0.4  │`, "backup_failed",
		`"blocked":false`, "host_stale", "host_down", "host_recovered", `"customer_id": "acme"`, `"reason": "no space left on pbs-main"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in the tour's output:\n%s", want, out)
		}
	}
}

// freeAddress returns an address on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
