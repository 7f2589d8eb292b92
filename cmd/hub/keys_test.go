package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"felhom.eu/hub/internal/engine/enginetest"
)

// TestRotateWithTheHub takes a key through its whole life with a hub that runs:
// the old key goes when ClickHouse has a report that came with the new one.
func TestRotateWithTheHub(t *testing.T) {
	enginetest.Need(t)
	s := newSite(t)
	hostID, old := s.enroll()
	h := s.serve()
	if status := h.report(hostID, old); status != http.StatusOK {
		t.Fatalf("the old key: %d", status)
	}
	var rotated struct {
		Key string `json:"api_key"`
	}
	owner := "host/" + hostID
	if err := json.Unmarshal([]byte(hubOutput(t, "fleet", "rotate", owner, "--dir", s.clone, "--json")), &rotated); err != nil {
		t.Fatal(err)
	}
	s.commit("rotate " + owner)
	h.pull()
	s.becomes("SELECT count() FROM host_reports", "1")

	finish := []string{"fleet", "rotate", "--finish", "--all", "--dir", s.clone, "--dsn", hubOutput(t, "dsn", "--config", s.config)}
	if said := hubOutput(t, finish...); !strings.Contains(said, "kept     k1 is valid until") {
		t.Errorf("before the agent changed keys: %s", said)
	}
	// The same bytes would be a retry, which leaves no row.
	eventually(t, "the new key", func() bool { return h.post(hostID, rotated.Key, 2) == http.StatusOK })
	s.becomes("SELECT groupArray(key_id) FROM (SELECT key_id FROM host_reports ORDER BY received_at)", "['k1','k2']")
	// ClickHouse shows a report a moment before what is derived from it.
	eventually(t, "the old key is removed", func() bool {
		return strings.Contains(hubOutput(t, finish...), "removed  k1 of "+owner+": k2 was used at 20")
	})
	s.commit("finish " + owner)
	h.pull()
	eventually(t, "the old key is refused", func() bool { return h.post(hostID, old, 3) == http.StatusUnauthorized })
	// Asking so often may have used up the host's rate for a moment.
	eventually(t, "the new key is still taken", func() bool { return h.post(hostID, rotated.Key, 4) == http.StatusOK })
}

// TestHybridFleetIsServed has a hub open a fleet that is sealed to hybrid
// recipients.
func TestHybridFleetIsServed(t *testing.T) {
	enginetest.Need(t)
	s := newSite(t)
	identity := filepath.Join(s.dir, "identity.txt")
	hostID, key := s.enroll()
	if err := os.Rename(identity, identity+".old"); err != nil {
		t.Fatal(err)
	}
	recipient := hubOutput(t, "key", "generate", "--post-quantum", "--out", identity)
	if err := os.WriteFile(filepath.Join(s.clone, "fleet", "recipients.txt"), []byte(recipient+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	hubOutput(t, "fleet", "reseal", "--dir", s.clone, "--identity", identity+".old")
	hubOutput(t, "fleet", "validate", s.clone)
	s.commit("hybrid recipients")
	h := s.serve()
	if status := h.report(hostID, key); status != http.StatusOK {
		t.Errorf("a key that was sealed anew: %d", status)
	}
	second, secondKey := s.enroll()
	h.pull()
	eventually(t, "a key made since", func() bool { return h.report(second, secondKey) == http.StatusOK })
}

// TestLostIdentityDrill runs the drill of fleet/README.md as it stands there,
// in a fleet whose hub has lost its identity, and starts the hub with the new one.
func TestLostIdentityDrill(t *testing.T) {
	enginetest.Need(t)
	data, err := os.ReadFile(filepath.Join(repositoryRoot(t), "fleet", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, drill, found := strings.Cut(string(data), "identity is lost\n")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(drill)
	if !found || block == nil {
		t.Fatal("fleet/README.md has no drill")
	}
	s := newSite(t)
	offline := hubOutput(t, "key", "generate", "--out", filepath.Join(s.dir, "offline.txt"))
	recipients := filepath.Join(s.clone, "fleet", "recipients.txt")
	text, err := os.ReadFile(recipients)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "# kept offline\n"+offline+"\n"...)
	if err := os.WriteFile(recipients, text, 0o644); err != nil {
		t.Fatal(err)
	}
	hostID, key := s.enroll()
	if err := os.Remove(filepath.Join(s.dir, "identity.txt")); err != nil { // lost
		t.Fatal(err)
	}

	// The drill is run above the fleet folder, with the offline identity at hand.
	if err := os.Rename(filepath.Join(s.dir, "offline.txt"), filepath.Join(s.clone, "offline.txt")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", "set -e\n"+block[1])
	cmd.Dir = s.clone
	cmd.Env = append(os.Environ(), "PATH="+hubDir(t)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := exec.Command("git", "-C", s.clone, "log", "origin/main..HEAD", "--name-only").Output(); err != nil || len(left) > 0 {
		t.Errorf("not pushed: %s %v", left, err)
	}
	if tracked, err := exec.Command("git", "-C", s.clone, "ls-files").Output(); err != nil || regexp.MustCompile(`(?m)^(offline|hub-new).*`).Match(tracked) {
		t.Errorf("identities were committed: %s %v", tracked, err)
	}
	if err := os.Rename(filepath.Join(s.clone, "hub-new.txt"), filepath.Join(s.dir, "identity.txt")); err != nil {
		t.Fatal(err)
	}
	h := s.serve()
	if status := h.report(hostID, key); status != http.StatusOK {
		t.Errorf("the agent's key, which nobody changed: %d", status)
	}
}

func TestProgressIsWipedAtTheEnd(t *testing.T) {
	var out strings.Builder
	show := progress(&out, "files")
	for i := range 250 {
		show(i+1, 250)
	}
	if want := "\r100 of 250 files\r200 of 250 files\r\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// commit commits and pushes what the clone holds.
func (s *site) commit(message string) {
	s.t.Helper()
	s.git(s.clone, "add", "-A")
	s.git(s.clone, "commit", "-q", "-m", message)
	s.git(s.clone, "push", "-q", "origin", "main")
}

// pull has the hub pull at once.
func (h *served) pull() {
	h.t.Helper()
	if err := h.Process.Signal(syscall.SIGHUP); err != nil {
		h.t.Fatal(err)
	}
}

// post posts a small report, another one for each n, and returns the status.
func (h *served) post(hostID, key string, n int) int {
	h.t.Helper()
	body, err := json.Marshal(map[string]any{"host_id": hostID, "reported_at": "2026-06-08T09:15:00Z", "agent_version": "t",
		"host": map[string]any{"uptime_seconds": n}})
	if err != nil {
		h.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+h.Listen+"/api/v1/host-report", strings.NewReader(string(body)))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
