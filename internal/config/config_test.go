package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadKeepsDefaultsAndResolvesPaths(t *testing.T) {
	file := write(t, "fleet: {url: ../fleet.git, identity_files: [id.txt]}\nmonitor: {stale_after: 2s, down_after: 1d}\nspool: {max_bytes: 1GiB}\n")
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	for got, want := range map[string]string{
		c.DataDir:                filepath.Join(dir, "data"),
		c.Fleet.URL:              filepath.Join(filepath.Dir(dir), "fleet.git"),
		c.Fleet.IdentityFiles[0]: filepath.Join(dir, "id.txt"),
		c.Fleet.Branch:           "main",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if c.Monitor.StaleAfter != 2*time.Second || c.Monitor.DownAfter != 24*time.Hour || c.Spool.MaxBytes != 1<<30 {
		t.Errorf("durations and sizes: %+v %+v", c.Monitor, c.Spool)
	}
	if c.ClickHouse.Embedded.HTTPPort != 8123 {
		t.Errorf("http_port: got %d, want the default 8123", c.ClickHouse.Embedded.HTTPPort)
	}
}

func TestEnvironmentWinsOverFile(t *testing.T) {
	file := write(t, "fleet: {url: https://git.example/fleet, interval: 5m}\nlisten: 127.0.0.1:1\n")
	c, err := Load(file, []string{"HUB_LISTEN=127.0.0.1:2", "HUB_FLEET_IDENTITY_FILES=/a,/b", "HUB_INGEST_HOST_RATE=3/s",
		"HUB_CLICKHOUSE_RETENTION_RAW=7d", "HUB_INGEST_MAX_CONNECTIONS=9", "HUB_PORT=tcp://10.0.0.1:80"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:2" || len(c.Fleet.IdentityFiles) != 2 || c.Ingest.HostRate != 3 ||
		c.ClickHouse.Retention.Raw != 7*24*time.Hour || c.Ingest.MaxConnections != 9 {
		t.Errorf("got %+v", c)
	}
}

func TestMistakesAreNamedAtTheirPlace(t *testing.T) {
	for name, c := range map[string]struct {
		text, env string
		want      []string
	}{
		"unknown key": {"fleet: {url: /x}\nclickhouse:\n  dns: x\n", "", []string{`hub.yaml:3:3: `, "dns", "dsn"}},
		"many at once": {"listen: 8080\nfleet:\n  url: /x\n  interval: never\nmonitor: {interval: x}\n", "",
			[]string{"hub.yaml:4:13", "hub.yaml:5:21"}},
		"thresholds":  {"fleet: {url: /x}\nmonitor:\n  stale_after: 2h\n", "", []string{"monitor.down_after", "stale before it is down"}},
		"no fleet":    {"listen: 127.0.0.1:0\n", "", []string{"fleet.url", "hub fleet init"}},
		"address":     {"fleet: {url: /x}\nlisten: nowhere\n", "", []string{`hub.yaml:2:9: listen: "nowhere" is no address`}},
		"environment": {"fleet: {url: /x}\n", "HUB_MONITOR_INTERVAL=soon", []string{"HUB_MONITOR_INTERVAL"}},
		"mint":        {"fleet: {url: /x, mint: yes}\n", "", []string{"off", "branch", "direct"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, c.text), []string{c.env})
			var mistakes *Error
			if !errors.As(err, &mistakes) {
				t.Fatalf("got %v, want an *Error", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in:\n%v", w, err)
				}
			}
		})
	}
}

func TestDefaultFileMayBeAbsent(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Load(DefaultFile, []string{"HUB_FLEET_URL=/x"}); err != nil {
		t.Error(err)
	}
	if _, err := Load(DefaultFile, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("neither file nor environment: got %v", err)
	}
	if _, err := Load("other.yaml", nil); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("other.yaml: got %v, want an error that says what to do", err)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	for _, f := range Fields() {
		if f.Doc == "" || strings.HasSuffix(f.Name, ".") {
			t.Errorf("%s has no doc tag", f.Name)
		}
	}
}
