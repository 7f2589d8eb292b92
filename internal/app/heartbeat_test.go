package app_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
)

// external has the hub of a site use a ClickHouse of its own, and returns a
// connection to it.
func (s *site) external() *clickhouse.DB {
	s.t.Helper()
	return s.externalAt(enginetest.DSN(s.t))
}

func (s *site) externalAt(address string) *clickhouse.DB {
	s.t.Helper()
	dsn, err := url.Parse(address)
	if err != nil {
		s.t.Fatal(err)
	}
	password, _ := dsn.User.Password()
	s.cfg.ClickHouse.PasswordFile = filepath.Join(s.dir, "password")
	if err := os.WriteFile(s.cfg.ClickHouse.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn.String()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() })
	dsn.User = url.User(dsn.User.Username())
	s.cfg.ClickHouse.DSN = dsn.String()
	return db
}

// failsWith waits for the error after which a hub cannot go on.
func (r *running) failsWith(want error) error {
	r.t.Helper()
	select {
	case err := <-r.Failed():
		if !errors.Is(err, want) {
			r.t.Fatalf("failed with %v, want %v", err, want)
		}
		return err
	case <-time.After(30 * time.Second):
		r.t.Fatalf("it goes on; want %v", want)
		return nil
	}
}

func TestOneHubServesOneDatabase(t *testing.T) {
	s := newSite(t)
	db := s.external()
	first := s.startReady()
	first.eventually("the first hub's heartbeat", func() bool {
		others, err := db.Others(t.Context(), "")
		return err == nil && len(others) == 1
	})

	here := s.cfg.DataDir
	s.cfg.DataDir = filepath.Join(s.dir, "second")
	second := s.start()
	if text := second.failsWith(app.ErrSecondHub).Error(); !strings.Contains(text, here) || !strings.Contains(text, "(test)") {
		t.Errorf("the error does not name the other hub: %s", text)
	}
	second.stop()

	first.stop() // it says so, and the second need not wait
	second = s.startReady()
	second.eventually("the second hub's heartbeat", func() bool {
		others, err := db.Others(t.Context(), "")
		return err == nil && len(others) == 1 && others[0].DataDir == s.cfg.DataDir
	})

	// A hub that died an hour ago, and one whose clock ran a day ahead, hold nobody up.
	second.stop()
	for id, at := range map[string]time.Time{"old": time.Now().Add(-time.Hour), "ahead": time.Now().Add(24 * time.Hour)} {
		if err := db.Beat(t.Context(), clickhouse.Heartbeat{DataDirID: id, At: at}); err != nil {
			t.Fatal(err)
		}
	}
	// The same hub is never refused, however young its last heartbeat is.
	others, err := db.Others(t.Context(), "")
	if err != nil || len(others) != 2 {
		t.Fatalf("%v, %v", others, err)
	}
	id, err := os.ReadFile(filepath.Join(s.cfg.DataDir, "id"))
	if err != nil {
		t.Fatal(err)
	}
	killed := clickhouse.Heartbeat{DataDirID: strings.TrimSpace(string(id)), At: time.Now()}
	if err := db.Beat(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	again := s.startReady()
	again.eventually("the same hub's next heartbeat", func() bool {
		others, err := db.Others(t.Context(), "")
		return err == nil && len(others) == 3 && others[1].DataDirID == killed.DataDirID && others[1].At.After(killed.At.Add(time.Millisecond))
	})
	select {
	case err := <-again.Failed():
		t.Error(err)
	default:
	}
}
