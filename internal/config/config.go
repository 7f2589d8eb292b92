// Package config reads hub.yaml: strictly, with defaults, and with every
// mistake named at its place.
//
// The comment on each field of [Config] is the reference of that field; the
// README's table is tested against it. Every field can also be set by an
// environment variable (clickhouse.dsn by HUB_CLICKHOUSE_DSN), which wins over
// the file. Secrets are paths, so they can come from systemd credentials or
// mounted secrets.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// DefaultFile is read where no file is named.
const DefaultFile = "hub.yaml"

const maxFileBytes = 256 << 10

// Config is hub.yaml.
type Config struct {
	Listen      string     `yaml:"listen" doc:"address for agents"`
	AdminListen string     `yaml:"admin_listen" doc:"address for health, metrics, pprof and fleet status; never public"`
	DataDir     string     `yaml:"data_dir" doc:"spool, git mirror and embedded engine; 0700, one hub per directory"`
	TLS         TLS        `yaml:"tls"`
	Fleet       Fleet      `yaml:"fleet"`
	ClickHouse  ClickHouse `yaml:"clickhouse"`
	Ingest      Ingest     `yaml:"ingest"`
	Spool       Spool      `yaml:"spool"`
	Monitor     Monitor    `yaml:"monitor"`
	Log         Log        `yaml:"log"`
}

// TLS makes listen speak HTTPS, with HTTP/2. Both files or none.
type TLS struct {
	CertFile string `yaml:"cert_file" doc:"certificate of listen with its chain, PEM; read again when it is replaced; empty: plain HTTP"`
	KeyFile  string `yaml:"key_file" doc:"its private key, PEM; not readable for others"`
}

// Fleet says where identity lives.
type Fleet struct {
	URL                string        `yaml:"url" doc:"the fleet repository: a path, file:// (both need git on the machine), https:// or ssh://"`
	Branch             string        `yaml:"branch" doc:"branch that the hub follows"`
	Path               string        `yaml:"path" doc:"folder of the repository that holds fleet.yaml"`
	Interval           time.Duration `yaml:"interval" doc:"time between pulls, minus up to 20 % jitter; SIGHUP pulls at once"`
	IdentityFiles      []string      `yaml:"identity_files" doc:"age identities that open the sealed keys, newest first; not readable for others"`
	CredentialsFile    string        `yaml:"credentials_file" doc:"https: a token; ssh: a private key; not readable for others"`
	KnownHostsFile     string        `yaml:"known_hosts_file" doc:"ssh: host keys to trust; empty: ~/.ssh/known_hosts"`
	CAFile             string        `yaml:"ca_file" doc:"https: certificates to trust instead of the system's"`
	WebhookSecretFile  string        `yaml:"webhook_secret_file" doc:"secret of POST /api/v1/fleet/webhook, with which a git server makes the hub pull at once; empty: there is no webhook; not readable for others"`
	AllowedSignersFile string        `yaml:"allowed_signers_file" doc:"who may sign commits, in git's format for SSH keys, with armored OpenPGP keys between the lines; empty: signatures are not required"`
	RevokedSignersFile string        `yaml:"revoked_signers_file" doc:"keys that may not sign any more: SSH public keys or fingerprints, OpenPGP fingerprints, one a line"`
	SigningKeyFile     string        `yaml:"signing_key_file" doc:"SSH private key with which the hub signs what it commits; needed for mint where allowed_signers_file is set; not readable for others"`
	MaxAge             time.Duration `yaml:"max_age" doc:"the same head for longer raises fleet_frozen; 0: off"`
	Mint               string        `yaml:"mint" oneof:"off|branch|direct" doc:"POST /api/v1/admin/hosts: off, branch (pushes enroll/<host_id> for a pull request) or direct (pushes to the branch the hub follows)"`
}

// ClickHouse says where reports live.
type ClickHouse struct {
	DSN          string    `yaml:"dsn" doc:"clickhouse://user@host:9000/hub; empty: the embedded engine"`
	PasswordFile string    `yaml:"password_file" doc:"password for dsn"`
	Embedded     Embedded  `yaml:"embedded"`
	Retention    Retention `yaml:"retention"`
}

// Embedded configures the embedded engine.
type Embedded struct {
	Library  string `yaml:"library" doc:"libchdb.so; empty: $HUB_ENGINE_LIBRARY, then the cache that make engine fills"`
	TCPPort  int    `yaml:"tcp_port" doc:"native port on loopback; 0: a free one"`
	HTTPPort int    `yaml:"http_port" doc:"HTTP port on loopback, for analysts; 0: a free one"`
}

// Retention says how long rows are kept, by the hub's receive time.
type Retention struct {
	Reports time.Duration `yaml:"reports" doc:"host_reports, controller_reports and rejected_items; 0: for ever"`
	Raw     time.Duration `yaml:"raw" doc:"host_report_bodies and controller_report_bodies; 0: for ever"`
	Guests  time.Duration `yaml:"guests" doc:"guest_reports, storage_target_reports and controller_apps; 0: for ever"`
	Items   time.Duration `yaml:"items" doc:"backup_reports, restore_test_reports, pbs_snapshot_reports and agent_audit; 0: for ever"`
	Events  time.Duration `yaml:"events" doc:"events; 0: for ever"`
}

// Ingest bounds what agents may do.
type Ingest struct {
	PollInterval     time.Duration `yaml:"poll_interval" doc:"the reporting interval that agents are told"`
	HostRate         yamlfile.Rate `yaml:"host_rate" doc:"reports of one host, and reports and events of the controller in one guest, each, over it 429; bursts of twice as many. 10/s is 9,000 times what a host sends every 15 minutes: it stops loops, and no host that catches up. 0: no limit"`
	CustomerRate     yamlfile.Rate `yaml:"customer_rate" doc:"reports of one customer's hosts together, and as much again of its controllers, over it 429; bursts of twice as many. 2000/s is what 1.8 million hosts send every 15 minutes, or 4,000 hosts that come back at once. 0: no limit"`
	MaxConnections   int           `yaml:"max_connections" doc:"connections on listen, over it 503"`
	MaxInFlightBytes yamlfile.Size `yaml:"max_in_flight_bytes" doc:"request bodies in memory, over it 503; one customer's may take no more than is left for the others; at least 32MiB"`
}

// Spool bounds the disk that acknowledged reports may take.
type Spool struct {
	MaxBytes yamlfile.Size `yaml:"max_bytes" doc:"largest size of the spool; when it is full agents get 503 and keep their reports"`
}

// Monitor configures the dead-man's switch.
type Monitor struct {
	Interval   time.Duration `yaml:"interval" doc:"time between evaluations of the dead-man's switch"`
	StaleAfter time.Duration `yaml:"stale_after" doc:"silence after which a host is stale, where the fleet says nothing"`
	DownAfter  time.Duration `yaml:"down_after" doc:"silence after which a host is down, where the fleet says nothing"`

	ProbeURL    string `yaml:"probe_url" doc:"the hub's address as agents have it, such as https://hub.example, at which it knocks every 10 s; empty: listen itself"`
	WatchdogURL string `yaml:"watchdog_url" doc:"address of an outside watcher, such as Healthchecks, that is asked at every interval while the switch judges; empty: none"`
}

// Log configures the log on standard error.
type Log struct {
	Level  string `yaml:"level" oneof:"debug|info|warn|error" doc:"least severity that is logged"`
	Format string `yaml:"format" oneof:"text|json" doc:"text or json"`
}

const day = 24 * time.Hour

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		Listen:      "127.0.0.1:8080",
		AdminListen: "127.0.0.1:8081",
		DataDir:     "./data",
		Fleet:       Fleet{Branch: "main", Path: "fleet", Interval: time.Minute, Mint: "off"},
		ClickHouse: ClickHouse{
			Embedded:  Embedded{HTTPPort: 8123},
			Retention: Retention{Reports: 90 * day, Raw: 14 * day, Guests: 90 * day, Items: 730 * day},
		},
		Ingest: Ingest{
			PollInterval: 15 * time.Minute, HostRate: 10, CustomerRate: 2000,
			MaxConnections: 4096, MaxInFlightBytes: 256 << 20,
		},
		Spool:   Spool{MaxBytes: 8 << 30},
		Monitor: Monitor{Interval: time.Minute, StaleAfter: 30 * time.Minute, DownAfter: time.Hour},
		Log:     Log{Level: "info", Format: "text"},
	}
}

// Error holds every mistake of a configuration.
type Error struct{ Problems []hub.Problem }

// Error lists the mistakes, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads file, then the environment. DefaultFile may be absent, any other
// file must be there. Relative paths in it are taken from the file's folder.
// Mistakes come as an *Error.
func Load(file string, environ []string) (*Config, error) {
	data, err := os.ReadFile(file)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing && (file != DefaultFile || !slices.ContainsFunc(environ, isFleetURL)):
		return nil, fmt.Errorf("%s: there is no such file; name one with --config (the README has an example), or try hub demo", file)
	case err != nil && !missing:
		return nil, err
	}
	c := Default()
	doc, problems := yamlfile.Parse(file, data, maxFileBytes)
	if doc == nil {
		return nil, &Error{problems}
	}
	problems = append(problems, doc.Decode(c)...)
	problems = append(problems, c.fromEnvironment(environ)...)
	for _, p := range c.check(doc) {
		if !slices.ContainsFunc(problems, func(known hub.Problem) bool { return sameSetting(known, p) }) {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		yamlfile.Sort(problems)
		return nil, &Error{problems}
	}
	return c, c.resolvePaths(filepath.Dir(file))
}

// sameSetting reports whether two problems are about one setting, which stands
// at the beginning of both messages: what could not be read is not judged again.
func sameSetting(a, b hub.Problem) bool {
	nameA, _, _ := strings.Cut(a.Message, ":")
	nameB, _, _ := strings.Cut(b.Message, ":")
	return nameA == nameB
}

// isFleetURL tells the one variable without which the environment alone makes no
// configuration.
func isFleetURL(entry string) bool { return strings.HasPrefix(entry, "HUB_FLEET_URL=") }

// Field is one setting of the reference.
type Field struct {
	Name    string // as "clickhouse.dsn"
	Env     string // as "HUB_CLICKHOUSE_DSN"
	Default string
	Doc     string
	value   reflect.Value
}

// Fields lists every setting with its default, in the order of the file.
func Fields() []Field { return Default().fields() }

func (c *Config) fields() []Field { return walk(reflect.ValueOf(c).Elem(), "") }

func walk(v reflect.Value, prefix string) []Field {
	var fields []Field
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name := prefix + tag.Get("yaml")
		if v.Field(i).Kind() == reflect.Struct {
			fields = append(fields, walk(v.Field(i), name+".")...)
			continue
		}
		fields = append(fields, Field{
			Name:    name,
			Env:     "HUB_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
			Default: text(v.Field(i).Interface()),
			Doc:     tag.Get("doc"),
			value:   v.Field(i),
		})
	}
	return fields
}

// text writes a value as a person writes it in the file.
func text(v any) string {
	d, ok := v.(time.Duration)
	switch {
	case !ok:
		return strings.Trim(fmt.Sprint(v), "[]")
	case d == 0:
		return "0"
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	}
	s := strings.TrimSuffix(d.String(), "m0s")
	if s != d.String() {
		s += "m"
	}
	if whole, ok := strings.CutSuffix(s, "h0m"); ok {
		s = whole + "h"
	}
	return s
}

// fromEnvironment sets fields from variables of their names. Lists are
// separated by commas.
func (c *Config) fromEnvironment(environ []string) []hub.Problem {
	set := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		set[name] = value
	}
	var problems []hub.Problem
	for _, f := range c.fields() {
		text, ok := set[f.Env]
		if !ok {
			continue
		}
		if list, isList := f.value.Addr().Interface().(*[]string); isList {
			*list = strings.Split(text, ",")
		} else if err := yamlfile.Set(f.value.Addr().Interface(), text); err != nil {
			problems = append(problems, hub.Problem{File: "environment variable " + f.Env, Message: err.Error()})
		}
	}
	return problems
}

// check finds values that are well-formed and wrong.
func (c *Config) check(doc *yamlfile.Document) []hub.Problem {
	var problems []hub.Problem
	wrong := func(path, message, hint string) {
		problems = append(problems, doc.Problem(path, path+": "+message, hint))
	}
	for path, address := range map[string]string{"listen": c.Listen, "admin_listen": c.AdminListen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			wrong(path, fmt.Sprintf("%q is no address", address), "write host:port, as 127.0.0.1:8080")
		}
	}
	for path, port := range map[string]int{"clickhouse.embedded.tcp_port": c.ClickHouse.Embedded.TCPPort, "clickhouse.embedded.http_port": c.ClickHouse.Embedded.HTTPPort} {
		if port < 0 || port > 65535 {
			wrong(path, fmt.Sprintf("%d is no port", port), "0 takes a free one")
		}
	}
	for path, d := range map[string]time.Duration{"fleet.interval": c.Fleet.Interval, "monitor.interval": c.Monitor.Interval, "monitor.stale_after": c.Monitor.StaleAfter, "ingest.poll_interval": c.Ingest.PollInterval} {
		if d <= 0 {
			wrong(path, fmt.Sprintf("%s is too short", d), "it must be over 0")
		}
	}
	for path, address := range map[string]string{"monitor.probe_url": c.Monitor.ProbeURL, "monitor.watchdog_url": c.Monitor.WatchdogURL} {
		if u, err := url.Parse(address); address != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			wrong(path, "that is not an address", "write https://…")
		}
	}
	if c.Monitor.DownAfter <= c.Monitor.StaleAfter {
		wrong("monitor.down_after", fmt.Sprintf("%s is not over monitor.stale_after (%s)", c.Monitor.DownAfter, c.Monitor.StaleAfter), "a host is stale before it is down")
	}
	if c.Fleet.URL == "" {
		wrong("fleet.url", "it is empty", "name the fleet repository; `hub fleet init` makes one")
	}
	if c.Fleet.MaxAge < 0 {
		wrong("fleet.max_age", "it must not be negative", "0 switches it off")
	}
	if c.Fleet.Mint != "off" && c.Fleet.AllowedSignersFile != "" && c.Fleet.SigningKeyFile == "" {
		wrong("fleet.signing_key_file", "it is empty, but fleet.mint commits and fleet.allowed_signers_file wants every commit signed",
			"make an SSH key (ssh-keygen -t ed25519 -N ''), name it here and its public half in the allowed signers, or set fleet.mint: off")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		wrong("tls", "cert_file and key_file go together", "name both, or neither for plain HTTP")
	}
	if c.Ingest.MaxInFlightBytes < minInFlight {
		wrong("ingest.max_in_flight_bytes", fmt.Sprintf("%s is too small", c.Ingest.MaxInFlightBytes), "at least 32MiB: one report may need a good part of it")
	}
	if c.Ingest.MaxConnections < 1 {
		wrong("ingest.max_connections", "it must be at least 1", "")
	}
	if c.Spool.MaxBytes < minSpool {
		wrong("spool.max_bytes", fmt.Sprintf("%s is too small", c.Spool.MaxBytes), "at least 64MiB")
	}
	return problems
}

const (
	minSpool    = 64 << 20
	minInFlight = 32 << 20
)

// resolvePaths makes every path absolute, from the configuration's folder.
func (c *Config) resolvePaths(dir string) error {
	paths := []*string{&c.DataDir, &c.TLS.CertFile, &c.TLS.KeyFile, &c.Fleet.CredentialsFile, &c.Fleet.KnownHostsFile, &c.Fleet.CAFile,
		&c.Fleet.WebhookSecretFile, &c.Fleet.AllowedSignersFile, &c.Fleet.RevokedSignersFile, &c.Fleet.SigningKeyFile,
		&c.ClickHouse.PasswordFile, &c.ClickHouse.Embedded.Library}
	for i := range c.Fleet.IdentityFiles {
		paths = append(paths, &c.Fleet.IdentityFiles[i])
	}
	if isPath(c.Fleet.URL) {
		paths = append(paths, &c.Fleet.URL)
	}
	for _, p := range paths {
		if *p == "" || filepath.IsAbs(*p) {
			continue
		}
		abs, err := filepath.Abs(filepath.Join(dir, *p))
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// isPath tells a path from a URL and from git's short form user@host:path.
func isPath(url string) bool {
	if strings.Contains(url, "://") {
		return false
	}
	host, _, colon := strings.Cut(url, ":")
	return !colon || strings.Contains(host, "/")
}
