package app

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/hub"
)

// embeddedDSN names the embedded engine; its address is asked for at each dial.
const embeddedDSN = "clickhouse://hub@embedded/hub"

func (a *App) openDatabase(launcher string) (err error) {
	a.engine, err = newEngine(a.cfg, launcher, a.log)
	if err != nil {
		return err
	}
	a.db, err = openDB(a.cfg, a.engine)
	return err
}

// newEngine returns the embedded engine, nil where clickhouse.dsn names another.
func newEngine(cfg *config.Config, launcher string, log *slog.Logger) (*engine.Engine, error) {
	c := cfg.ClickHouse
	if c.DSN != "" {
		return nil, nil
	}
	return engine.New(engine.Options{
		Dir: EngineDir(cfg), Launcher: launcher, Library: c.Embedded.Library,
		TCPPort: c.Embedded.TCPPort, HTTPPort: c.Embedded.HTTPPort, Logger: log,
	})
}

// EngineDir returns where the embedded engine of a configuration lives.
func EngineDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, engineFolder) }

// openDB opens the database of a configuration; it does not connect.
func openDB(cfg *config.Config, e *engine.Engine) (*clickhouse.DB, error) {
	if e != nil {
		return clickhouse.Open(clickhouse.Options{DSN: embeddedDSN, Resolve: func() (string, hub.Secret) {
			return e.Endpoint().TCP, e.Password(engine.RoleHub)
		}})
	}
	password, err := Password(cfg)
	if err != nil {
		return nil, err
	}
	return clickhouse.Open(clickhouse.Options{DSN: cfg.ClickHouse.DSN, Password: password})
}

// Password reads clickhouse.password_file; it is empty where none is named.
func Password(cfg *config.Config) (hub.Secret, error) {
	file := cfg.ClickHouse.PasswordFile
	if file == "" {
		return hub.Secret{}, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return hub.Secret{}, fmt.Errorf("clickhouse.password_file: %w", err)
	}
	return hub.NewSecret(strings.TrimRight(string(text), "\r\n")), nil
}

func retention(cfg *config.Config) clickhouse.Retention {
	r := cfg.ClickHouse.Retention
	return clickhouse.Retention{Reports: r.Reports, Raw: r.Raw, Guests: r.Guests, Items: r.Items, Events: r.Events}
}

// scratchDir makes a private folder in data_dir; remove deletes it.
func scratchDir(dataDir string) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(dataDir, "check-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}
