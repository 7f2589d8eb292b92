package engine

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"felhom.eu/hub/internal/hub"
	"golang.org/x/sys/unix"
)

// What lies in Options.Dir, beside the folder that is ClickHouse's own.
const (
	dataFolder   = "data"
	configFile   = "config.xml"
	usersFile    = "users.xml"
	logFile      = "engine.log" // JSON lines, rotated by the engine
	lockFile     = "lock"       // held as long as the supervisor or its engine lives
	endpointFile = "endpoint.json"
)

// hiddenTables are the tables of Options.Database that analyst may not read. The
// feed of a hidden table is one: who reads it reads the table, with the rights
// of its definer.
var hiddenTables = []string{"fleet_keys", "fleet_key_changes", "hub_heartbeats", "key_last", "key_last_feed", "controller_key_last_feed", "rejected_reports"}

var (
	//go:embed config.xml.tmpl
	configText string
	//go:embed users.xml.tmpl
	usersText string

	escape         = template.FuncMap{"xml": html.EscapeString}
	configTemplate = template.Must(template.New(configFile).Funcs(escape).Parse(configText))
	usersTemplate  = template.Must(template.New(usersFile).Funcs(escape).Parse(usersText))
)

// writeConfiguration generates both files anew: they hold nothing that an older
// hub or a person should have changed.
func writeConfiguration(dir, database string, passwords map[Role]hub.Secret) error {
	const mib = 1 << 20
	memory := totalMemory()
	values := map[string]any{
		"UsersFile":       filepath.Join(dir, usersFile),
		"LogFile":         filepath.Join(dir, logFile),
		"Database":        database,
		"Hidden":          hiddenTables,
		"HubPassword":     sha256Hex(passwords[RoleHub]),
		"AnalystPassword": sha256Hex(passwords[RoleAnalyst]),
		"QueryMemory":     min(max(memory/8, 256*mib), 4096*mib),
		"UserMemory":      min(max(memory/4, 256*mib), 8192*mib),
		"UserDisk":        4096 * mib,
		"Threads":         max(1, runtime.NumCPU()/2),
	}
	for name, t := range map[string]*template.Template{configFile: configTemplate, usersFile: usersTemplate} {
		var text bytes.Buffer
		if err := t.Execute(&text, values); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, name), text.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func sha256Hex(s hub.Secret) string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}

// passwords returns the roles' passwords in dir; with create those that are
// missing are made.
func readPasswords(dir string, create bool) (map[Role]hub.Secret, error) {
	passwords := make(map[Role]hub.Secret)
	for _, role := range []Role{RoleHub, RoleAnalyst} {
		path := filepath.Join(dir, string(role)+".password")
		text, err := os.ReadFile(path)
		if create && errors.Is(err, fs.ErrNotExist) {
			text = []byte(rand.Text() + "\n")
			err = writeFile(path, text)
		}
		if err != nil {
			return nil, fmt.Errorf("password of the engine's user %s: %w", role, err)
		}
		password := strings.TrimSpace(string(text))
		if password == "" {
			return nil, fmt.Errorf("%s is empty: remove it, and a new password is made at the next start", path)
		}
		passwords[role] = hub.NewSecret(password)
	}
	return passwords, nil
}

// writeFile replaces path as a whole, readable by its owner alone.
func writeFile(path string, data []byte) error {
	aside := path + ".new"
	if err := os.WriteFile(aside, data, 0o600); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

// lockDir takes dir for this process. It waits up to patience, because the
// engine of a hub that was just killed holds the lock for the moment it takes
// to notice.
func lockDir(dir string, patience time.Duration) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	_ = file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s; stop the other hub or use another directory", ErrInUse, dir)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// locked reports whether an engine or its supervisor holds dir.
func locked(dir string) bool {
	file, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Description is what a client needs to know of a running engine.
type Description struct {
	Endpoint
	PID       int    `json:"pid"`
	Database  string `json:"database"`
	passwords map[Role]hub.Secret
}

// Describe tells of the engine that runs in dir, from the files that it keeps
// there. Only who may read those files (the hub's own user) learns anything.
func Describe(dir string) (Description, error) {
	none := fmt.Errorf("no engine runs in %s: start it with hub serve or hub engine", dir)
	if !locked(dir) {
		return Description{}, none
	}
	data, err := os.ReadFile(filepath.Join(dir, endpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Description{}, fmt.Errorf("the engine in %s is only just starting: try again in a second", dir)
	}
	if err != nil {
		return Description{}, err
	}
	var d Description
	if err := json.Unmarshal(data, &d); err != nil {
		return Description{}, fmt.Errorf("%s: %w", filepath.Join(dir, endpointFile), err)
	}
	d.passwords, err = readPasswords(dir, false)
	return d, err
}

// writeDescription makes Describe work in another process.
func writeDescription(dir string, d Description) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, endpointFile), append(data, '\n'))
}

// Password returns the password of role.
func (d Description) Password(role Role) hub.Secret { return d.passwords[role] }

// NativeURL returns clickhouse://user:password@address/database, which
// clickhouse-go and most other clients read.
func (d Description) NativeURL(role Role) hub.Secret {
	return d.url("clickhouse", d.TCP, "/"+d.Database, "", role)
}

// HTTPURL returns http://user:password@address/?database=…, for curl and
// clients that speak HTTP. It is the one to give to analysts: a refused login
// there is harmless, on the native port it ends the engine.
func (d Description) HTTPURL(role Role) hub.Secret {
	return d.url("http", d.HTTP, "/", "database="+url.QueryEscape(d.Database), role)
}

func (d Description) url(scheme, address, path, query string, role Role) hub.Secret {
	u := url.URL{
		Scheme: scheme, Host: address, Path: path, RawQuery: query,
		User: url.UserPassword(string(role), d.passwords[role].Reveal()),
	}
	return hub.NewSecret(u.String())
}
