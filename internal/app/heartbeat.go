package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"felhom.eu/hub/internal/clickhouse"
)

// One hub serves one database: two would judge one fleet's silence, each without
// the reports that only the other has. A second copy of a data directory is kept
// out by nothing but the lock of its spool, since it has the same id.
const (
	beatInterval = 20 * time.Second
	beatFresh    = time.Minute // a hub whose heartbeat is younger runs
)

// ErrSecondHub means that another hub serves the database.
var ErrSecondHub = errors.New("another hub serves this database")

const idFile = "id"

// dataDirID returns the random id of a data directory, drawn at its first use.
func dataDirID(dir string) (string, error) {
	path := filepath.Join(dir, idFile)
	text, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(text))
		if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
			return "", fmt.Errorf("data_dir: %s is not 32 hex digits: remove it, and the hub draws another id", path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("data_dir: %w", err)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	text = []byte(hex.EncodeToString(id) + "\n")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("data_dir: %w", err)
	}
	return hex.EncodeToString(id), nil
}

// heartbeat is what this hub writes now.
func (a *App) heartbeat() clickhouse.Heartbeat {
	machine, _ := os.Hostname() // empty where the machine has none
	dir, err := filepath.Abs(a.cfg.DataDir)
	if err != nil {
		dir = a.cfg.DataDir
	}
	return clickhouse.Heartbeat{DataDirID: a.id, At: a.now(), Machine: machine, DataDir: dir, Version: a.version}
}

// claimDatabase refuses to serve a database that another hub serves. Of two that
// start at one instant the one with the smaller id stays.
func (a *App) claimDatabase(ctx context.Context) error {
	if err := a.alone(ctx, func(clickhouse.Heartbeat) bool { return true }); err != nil {
		return err
	}
	if err := a.db.Beat(ctx, a.heartbeat()); err != nil {
		return err
	}
	a.claimed = true
	return a.alone(ctx, func(other clickhouse.Heartbeat) bool { return other.DataDirID < a.id })
}

// alone returns ErrSecondHub where a hub of another data directory runs and counts.
func (a *App) alone(ctx context.Context, counts func(clickhouse.Heartbeat) bool) error {
	others, err := a.db.Others(ctx, a.id)
	if err != nil {
		return err
	}
	now := a.now()
	for _, o := range others {
		if age := now.Sub(o.At); age.Abs() < beatFresh && counts(o) {
			return fmt.Errorf("%w: the one on %s:%s (%s), heard %s ago; stop it and wait a minute, or name another database in clickhouse.dsn",
				ErrSecondHub, o.Machine, o.DataDir, o.Version, max(0, age).Round(time.Second))
		}
	}
	return nil
}

// beat keeps the heartbeat young until ctx ends, and says then that the hub stops.
func (a *App) beat(ctx context.Context) {
	for sleep(ctx, beatInterval) {
		err := a.db.Beat(ctx, a.heartbeat())
		if err == nil {
			err = a.alone(ctx, func(clickhouse.Heartbeat) bool { return true })
		}
		if errors.Is(err, ErrSecondHub) {
			a.log.Error("two hubs write to one database", "error", err)
		}
	}
}

// leaveDatabase says that the hub stops, so that another may start at once.
func (a *App) leaveDatabase(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	last := a.heartbeat()
	last.Stopped = 1
	if err := a.db.Beat(ctx, last); err != nil {
		a.log.Debug("the last heartbeat could not be written", "error", err)
	}
}
