package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func TestControllerEventRow(t *testing.T) {
	at := Receipt{Position{SpoolID{0xab}, 17}, time.Date(2026, 6, 8, 9, 15, 1, 0, time.UTC)}
	sum := sha256.Sum256([]byte("felhom-event/1\ncontroller\nab000000000000000000000000000000\n17"))
	sent := ControllerEvent{Type: "backup_failed", Severity: "critical", Message: strings.Repeat("é", 2001), GuestID: "acme-1/101"}
	e := sent.Event("acme", at)
	if e.ID != hex.EncodeToString(sum[:16]) || e.HostID != "acme-1" || e.GuestID != "acme-1/101" || e.CustomerID != "acme" || e.Severity() != "critical" ||
		e.Source != "controller" || !e.At.Equal(at.ReceivedAt) || !e.DetectedAt.Equal(at.ReceivedAt) || e.Reason != strings.Repeat("é", 2000) {
		t.Errorf("%+v", e)
	}
	sent.GuestID, sent.At, sent.Message = "", at.ReceivedAt.Add(-time.Hour), "short"
	if e := sent.Event("acme", at); e.HostID != "" || !e.At.Equal(sent.At) || e.Reason != "short" {
		t.Errorf("%+v", e)
	}
}
