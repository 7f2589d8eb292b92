package fleetfile

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/hub"
)

const expecting = `
-- fleet.yaml --
apiVersion: hub.felhom.eu/v1
kind: Fleet
metadata: {name: felhom}
spec:
  keys: []
  deadlines: {backup: 26h, restoreTest: 35d}
  maintenance:
    - {name: patch-night, reason: updates, every: "FREQ=MONTHLY;BYDAY=2TU", start: 2026-01-13T22:00:00, timeZone: Europe/Berlin, duration: 4h}
  controllerEvents: [backup_failed, soup_ready]
-- customers/acme/customer.yaml --
apiVersion: hub.felhom.eu/v1
kind: Customer
metadata: {name: acme}
spec:
  keys: []
  deadlines: {restoreTest: 90d, pbsVerify: 8d}
  maintenance:
    - {name: patch-night, every: "FREQ=MONTHLY;BYDAY=2TU", start: 2026-01-13T22:00:00, timeZone: Europe/Berlin, duration: 4h}
-- customers/acme/hosts/acme-00000001.yaml --
apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: acme-00000001, customer: acme}
spec:
  keys: []
  deadlines: {restoreTest: off}
  maintenance:
    - {name: disk-swap, reason: "new disks", from: 2026-12-01T22:00:00+01:00, to: 2026-12-02T02:00:00+01:00}
-- customers/acme/hosts/acme-00000002.yaml --
apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: acme-00000002, customer: acme}
spec: {keys: []}
`

func TestLoadExpectations(t *testing.T) {
	c := newCast(t)
	fleet, problems, err := Load(c.folder(t, txtar.Parse([]byte(expecting))), nil, Options{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	const day = 24 * time.Hour
	h, _ := fleet.Host("acme-00000001")
	if got, want := fleet.Deadlines(h), (hub.Deadlines{26 * time.Hour, 0, 8 * day}); got != want {
		t.Errorf("deadlines %v, want %v", got, want)
	}
	other, _ := fleet.Host("acme-00000002")
	if got, want := fleet.Deadlines(other), (hub.Deadlines{26 * time.Hour, 90 * day, 8 * day}); got != want {
		t.Errorf("deadlines of the other %v, want %v", got, want)
	}
	var names []string
	windows := fleet.Windows(h)
	for _, w := range windows {
		names = append(names, w.Owner.String()+": "+w.Name+": "+w.Reason)
	}
	if want := []string{"host/acme-00000001: disk-swap: new disks", "customer/acme: patch-night: ", "fleet: patch-night: updates"}; !slices.Equal(names, want) {
		t.Fatalf("windows %q, want %q", names, want)
	}
	if windows[1].Schedule != windows[2].Schedule {
		t.Error("equal schedules are not shared")
	}
	from := time.Date(2026, 12, 1, 21, 0, 0, 0, time.UTC)
	if begin, end, open := windows[0].Schedule.At(from); !open || !begin.Equal(from) || !end.Equal(from.Add(4*time.Hour)) {
		t.Error(begin, end, open)
	}
	from = time.Date(2027, 7, 13, 20, 0, 0, 0, time.UTC)
	if begin, end, open := windows[2].Schedule.At(from); !open || !begin.Equal(from) || !end.Equal(from.Add(4*time.Hour)) {
		t.Error(begin, end, open)
	}
	for event, want := range map[hub.EventType]bool{"backup_failed": true, "soup_ready": true, "backup_started": false, hub.HostDown: false} {
		if fleet.TakesEvent(event) != want {
			t.Errorf("%s is taken: %v", event, !want)
		}
	}
}

func TestControllerEventsLeftOutAndNone(t *testing.T) {
	c := newCast(t)
	for line, want := range map[string]bool{"  controllerEvents: []\n": false, "": true, "  controllerEvents:\n": true} {
		fsys := c.folder(t, txtar.Parse([]byte(expecting)))
		fsys[FleetPath].Data = bytes.Replace(fsys[FleetPath].Data, []byte("  controllerEvents: [backup_failed, soup_ready]\n"), []byte(line), 1)
		fleet, problems, err := Load(fsys, nil, Options{})
		if err != nil || len(problems) > 0 {
			t.Fatal(problems, err)
		}
		if fleet.TakesEvent("backup_failed") != want {
			t.Errorf("%q: backup_failed is taken: %v", line, !want)
		}
	}
}

// TestKeysAreRotatedAroundTheWindows: what the commands change leaves the rest as
// it was written.
func TestKeysAreRotatedAroundTheWindows(t *testing.T) {
	const in = `apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: acme-00000001, customer: acme}
spec:
  deadlines: {backup: 26h, restoreTest: off}   # no tests here
  keys:
    - id: k1
      sealedTo: [9f2c41d07be3a655]
      sealed: x
  maintenance:   # the disks
    - {name: disk-swap, from: 2026-12-01T22:00:00+01:00, to: 2026-12-02T02:00:00+01:00}
    - name: patch-night
      every: FREQ=MONTHLY;BYDAY=2TU   # as Microsoft's
      start: 2026-01-13T22:00:00
      timeZone: Europe/Berlin
      duration: 4h
`
	f, problems := ReadKeys("customers/acme/hosts/acme-00000001.yaml", []byte(in))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	out, err := f.Rotate(Key{ID: "k2", SealedTo: []string{"1111111111111111"}, Sealed: "y"}, map[int]time.Time{0: time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines([]byte(in)) {
		if !bytes.Contains(out, line) {
			t.Errorf("lost %s", line)
		}
	}
	if !bytes.Contains(out, []byte("id: k2")) || !bytes.Contains(out, []byte("notAfter: 2027-06-01")) {
		t.Errorf("not rotated:\n%s", out)
	}
}
