package app_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
)

// hookSecret writes a secret and has the configuration name it.
func (s *site) hookSecret(text string) (file string) {
	s.t.Helper()
	file = filepath.Join(s.dir, "webhook.secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.cfg.Fleet.WebhookSecretFile = file
	return file
}

// hint posts a push as GitHub does, and returns the status.
func (r *running) hint(secret string) int {
	r.t.Helper()
	const body = `{"ref":"refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = io.WriteString(mac, body)
	req, err := http.NewRequest(http.MethodPost, "http://"+r.Addr()+"/api/v1/fleet/webhook", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}

func TestWebhookBringsAPushInForce(t *testing.T) {
	s := newSite(t)
	file := s.hookSecret("first\n")
	r := s.startReady()
	host := s.enroll("acme", false)
	s.push("enroll " + host.HostID)
	if status := r.report(host.HostID, host.APIKey, 1); status != 401 {
		t.Fatalf("before the webhook: %d, want 401", status)
	}
	if status := r.hint("wrong"); status != 401 {
		t.Errorf("a wrong secret: %d", status)
	}
	began := time.Now()
	if status := r.hint("first"); status != 202 {
		t.Fatalf("%d", status)
	}
	r.eventually("the new host's key is accepted", func() bool { return r.report(host.HostID, host.APIKey, 1) == 200 })
	t.Logf("in force %s after the webhook", time.Since(began).Round(time.Millisecond))

	// The secret is replaced while the hub runs.
	if err := os.WriteFile(file, []byte("second\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if first, second := r.hint("first"), r.hint("second"); first != 401 || second != 202 {
		t.Errorf("after the change: %d with the first, %d with the second", first, second)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if status := r.hint("second"); status != 503 || !strings.Contains(s.log.String(), "chmod 600 "+file) {
		t.Errorf("open to others: %d", status)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	if status := r.hint(""); status != 404 {
		t.Errorf("empty: %d", status)
	}
	for _, secret := range []string{"first", "second"} {
		if strings.Contains(s.log.String(), "="+secret) {
			t.Errorf("the secret %s is in the log", secret)
		}
	}
}

func TestWebhookSecretAtStart(t *testing.T) {
	s := newSite(t)
	file := s.hookSecret("\n")
	r := s.startReady()
	if status := r.hint(""); status != 404 || !strings.Contains(s.log.String(), "the webhook is switched off") {
		t.Errorf("an empty secret: %d\n%s", status, s.log)
	}
	r.stop()
	for name, spoil := range map[string]func() error{
		"chmod 600":    func() error { return os.Chmod(file, 0o640) },
		"is no secret": func() error { return os.WriteFile(file, make([]byte, 5000), 0o600) },
		"no such file": func() error { return os.Remove(file) },
	} {
		s.hookSecret("x")
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		_, err := app.New(app.Options{Config: s.cfg, Launcher: enginetest.Launcher(t)})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "fleet.webhook_secret_file") {
			t.Errorf("want %s, got %v", name, err)
		}
		_ = os.Remove(file)
	}
}

// ask asks over the control socket.
func (s *site) ask(path string) (int, string) {
	s.t.Helper()
	c := control.Client(s.cfg.DataDir)
	defer c.CloseIdleConnections()
	res, err := c.Get("http://hub" + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// tell posts over the control socket.
func (s *site) tell(path, body string) (int, string) {
	s.t.Helper()
	c := control.Client(s.cfg.DataDir)
	defer c.CloseIdleConnections()
	res, err := c.Post("http://hub"+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	reply, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(reply)
}

func TestStatusTellsOfKeysAndRefusals(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	late := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	expired := s.enrollAs("acme", "acme-expired", &late)
	s.push("hosts")
	r := s.startReady()
	if status := r.report(host.HostID, host.APIKey, 1); status != 200 {
		t.Fatal(status)
	}
	for _, c := range []struct {
		id   string
		key  hub.Secret
		want int
	}{{"acme-expired", expired, 401}, {"acme-expired", expired, 401}, {"other", host.APIKey, 403}} {
		if status := r.report(c.id, c.key, 1); status != c.want {
			t.Errorf("%s: %d, want %d", c.id, status, c.want)
		}
	}

	type refused struct {
		HostID   string `json:"host_id"`
		Customer string `json:"customer_id"`
		Reasons  []struct {
			Status, Count int
			Reason        string
		}
	}
	type fleet struct {
		Revision string
		Refused  []refused      `json:"refused_hosts"`
		Keys     map[string]int `json:"keys"`
	}
	var told struct {
		Version string
		Started time.Time `json:"started_at"`
		Ready   bool
		Fleet   fleet
		Owner   struct {
			Owner      string
			LastReport time.Time `json:"last_report"`
			Keys       []struct {
				ID      string
				Valid   bool
				LastUse time.Time `json:"last_use"`
			}
		}
	}
	status, body := s.ask("/status?owner=host/" + host.HostID)
	if err := json.Unmarshal([]byte(body), &told); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	if told.Version != "test" || !told.Ready || time.Since(told.Started) > time.Minute || told.Fleet.Revision == "" {
		t.Errorf("%+v", told)
	}
	if k := told.Owner.Keys; len(k) != 1 || !k[0].Valid || time.Since(k[0].LastUse) > time.Minute || told.Owner.LastReport.IsZero() {
		t.Errorf("owner: %+v", told.Owner)
	}
	check := func(where string, f fleet) {
		t.Helper()
		if len(f.Refused) != 2 || f.Refused[0].HostID != host.HostID || f.Refused[0].Reasons[0].Status != 403 ||
			f.Refused[1].HostID != "acme-expired" || f.Refused[1].Customer != "acme" || f.Refused[1].Reasons[0].Status != 401 ||
			f.Refused[1].Reasons[0].Count != 2 || f.Refused[1].Reasons[0].Reason != "expired_key" {
			t.Errorf("%s: %+v", where, f.Refused)
		}
		all := 0
		for _, n := range f.Keys {
			all += n
		}
		if all != 5 || f.Keys["1h"] > 1 { // acme's and globex' first hosts, two more, and the global key
			t.Errorf("%s: keys %v", where, f.Keys)
		}
	}
	check("status", told.Fleet)
	var f fleet
	_, text := r.get("/api/v1/fleet/status")
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	check("fleet status", f)
	for _, key := range []hub.Secret{host.APIKey, expired, s.global} {
		if digest, _ := hub.DigestKey(key.Reveal()); strings.Contains(body+text, key.Reveal()) || strings.Contains(body+text, hex.EncodeToString(digest[:])) {
			t.Error("a key or its digest is shown")
		}
	}
	_, metrics := r.get("/metrics")
	for _, want := range []string{"\nhub_refused_hosts 2\n", "\nhub_keys{last_used=\"never\"} ", "\nhub_keys{last_used=\"1h\"} "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no metric %q", want)
		}
	}

	for owner, want := range map[string]int{"nonsense": 400, "host/nobody": 400, "customer/acme": 200, "fleet": 200} {
		if status, body := s.ask("/status?owner=" + owner); status != want {
			t.Errorf("%s: %d %s", owner, status, body)
		}
	}
	r.stop()
	if _, err := os.Lstat(control.Path(s.cfg.DataDir)); !os.IsNotExist(err) {
		t.Errorf("the socket stays behind: %v", err)
	}
}
