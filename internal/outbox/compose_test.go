package outbox_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Operators who want German get it, in their own time, also of a customer that reads
// English in UTC; and the customer goes on to read that.
func TestOperatorsAreToldInTheirLanguage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(-1)
		w.locale = func(spec *hub.FleetSpec) {
			spec.Language, spec.TimeZone = "de", "Europe/Berlin"
			spec.Customers[0].Language, spec.Customers[0].TimeZone = "", ""
		}
		w.makeFleet()
		w.boot()
		at := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)
		w.tell(hub.Event{ID: "0001", Type: hub.HostDown, CustomerID: "acme", HostID: "acme-0", At: at, DetectedAt: at, Episode: "e", Source: "switch",
			LastSeen: &hub.LastSeen{PVEVersion: "8.4.1", Guests: 3, GuestsRunning: 2}})
		w.tell(hub.Event{ID: "0002", Type: hub.HubSwitchHeld, At: at, DetectedAt: at, Source: "switch"})
		time.Sleep(time.Second)
		w.b.Stop()
		for channel, want := range map[string][]string{
			"fleet/ops":          {"acme-host-0 ist ausgefallen", "Seit: Mi 01.07.2026, 12:00 Uhr CEST", "Letzter Stand: Proxmox VE 8.4.1, 2 von 3 Gästen in Betrieb", "Einstufung: kritisch"},
			"customer/acme/chat": {"acme-host-0 is down", "Since: Wed 1 Jul 2026, 10:00 UTC", "Last state: Proxmox VE 8.4.1, 2 of 3 guests running"},
		} {
			var texts []string
			for _, r := range w.receipts[channel] {
				texts = append(texts, r.text)
			}
			for _, part := range want {
				if all := strings.Join(texts, "\n"); !strings.Contains(all, part) {
					t.Errorf("%s: %s\nhas no %q", channel, all, part)
				}
			}
		}
		if got := w.receipts["fleet/ops"]; len(got) != 2 || !strings.Contains(got[1].text, "Seit: ") {
			t.Errorf("the hub's own event is told as %+v", got)
		}
	})
}
