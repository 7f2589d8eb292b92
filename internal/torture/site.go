package torture

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"felhom.eu/hub/internal/simulate"
)

// site is a fleet repository with enrolled hosts, and a hub's configuration. All
// faults with so many hosts share it; each has a data_dir of its own.
type site struct {
	bin, dir string
	config   string
	keys     []simulate.Credential
}

// Rates are not limited, and the repository is read once: the harness is about
// neither.
const siteConfig = `fleet: {url: fleet.git, interval: 1h, identity_files: [identity.txt]}
ingest: {host_rate: 0, customer_rate: 0}
clickhouse: {embedded: {http_port: 0}}
log: {format: json}
`

// newSite makes a site with so many hosts in dir.
func newSite(ctx context.Context, bin, dir string, hosts int) (*site, error) {
	s := &site{bin: bin, dir: dir, config: filepath.Join(dir, "hub.yaml")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.config, []byte(siteConfig), 0o600); err != nil {
		return nil, err
	}
	var enrolled []byte
	for _, step := range [][]string{
		{"git", "init", "-q", "--bare", "-b", "main", "fleet.git"},
		{"git", "init", "-q", "-b", "main", "clone"},
		{filepath.Join(bin, "hub"), "fleet", "init", filepath.Join("clone", "fleet"), "--identity", "identity.txt"},
		{filepath.Join(bin, "hub"), "fleet", "enroll", "--dir", "clone", "--customer", "acme", "--new-customer", "--count", strconv.Itoa(hosts), "--json"},
		{"git", "-C", "clone", "add", "-A"},
		{"git", "-C", "clone", "commit", "-q", "-m", "the fleet"},
		{"git", "-C", "clone", "push", "-q", "../fleet.git", "main"},
	} {
		out, err := s.run(ctx, step)
		if err != nil {
			return nil, err
		}
		if step[2] == "enroll" {
			enrolled = out
		}
	}
	var err error
	s.keys, err = simulate.ReadKeys(bytes.NewReader(enrolled))
	return s, err
}

// run runs a command to its end and returns what it printed.
func (s *site) run(ctx context.Context, command []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=Torture", "GIT_AUTHOR_EMAIL=torture@localhost", "GIT_COMMITTER_NAME=Torture", "GIT_COMMITTER_EMAIL=torture@localhost")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(command[:min(3, len(command))], " "), err, &stderr)
	}
	return out, nil
}

// serve starts a hub with this data_dir.
func (s *site) serve(dataDir, listen, admin, log string, env ...string) (*process, error) {
	cmd := exec.Command(filepath.Join(s.bin, "hub"), "serve", "--config", s.config)
	cmd.Env = append(os.Environ(), "HUB_DATA_DIR="+dataDir, "HUB_LISTEN="+listen, "HUB_ADMIN_LISTEN="+admin)
	cmd.Env = append(cmd.Env, env...)
	return startProcess(cmd, log)
}

// freeAddress returns an address that nobody listens on: a hub that is started
// again must have its old one.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
