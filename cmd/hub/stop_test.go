package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
)

// TestI21_SigtermUnderLoad stops a hub that several clients post to: it is gone
// within 10 s, and what it acknowledged is there once it runs again.
func TestI21_SigtermUnderLoad(t *testing.T) {
	enginetest.Need(t)
	t.Setenv("HUB_INGEST_HOST_RATE", "10000/s")
	s := newSite(t)
	hostID, key := s.enroll()
	h := s.serve()
	var sent, acknowledged atomic.Int64
	var stopping atomic.Bool
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for !stopping.Load() {
				if h.numbered(hostID, key, sent.Add(1)) == http.StatusOK {
					acknowledged.Add(1)
				}
			}
		})
	}
	eventually(t, "load", func() bool { return acknowledged.Load() > 200 })
	began := time.Now()
	status := h.end(syscall.SIGTERM)
	took := time.Since(began)
	stopping.Store(true)
	clients.Wait()
	if status != 0 || took > stopWithin {
		t.Errorf("exit status %d, %s after SIGTERM", status, took)
	}
	h = s.serve()
	s.becomes(fmt.Sprintf("SELECT count() >= %d, count() <= %d, count() = uniqExact(uptime_seconds) FROM host_reports", acknowledged.Load(), sent.Load()), "1\t1\t1")
	h.end(syscall.SIGTERM)
}

// numbered posts a report that no other number gives, and returns the status, 0
// where there was no reply.
func (h *served) numbered(hostID, key string, n int64) int {
	body := fmt.Sprintf(`{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{"uptime_seconds":%d}}`, hostID, n)
	req, err := http.NewRequest(http.MethodPost, "http://"+h.Listen+"/api/v1/host-report", strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}
