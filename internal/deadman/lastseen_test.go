package deadman_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// What ClickHouse has of the report before the silence is in the words of the alarm.
// Where it does not tell, the alarm is the same without.
func TestTheAlarmHasTheLastReport(t *testing.T) {
	w := newWorld(t, active("acme-1"))
	total, used := uint64(200), uint64(50)
	w.reportOf(&hub.Report{HostID: "acme-1", PVEVersion: "8.4.1", MemoryTotalBytes: &total, MemoryUsedBytes: &used,
		Guests: []hub.Guest{{VMID: 101, Status: "running"}, {VMID: 102, Status: "stopped"}}}, 0)
	w.tick(time.Minute)
	w.blurred = errors.New("boom")
	if got := w.tick(30 * time.Minute); got != "acme-1:host_stale" {
		t.Fatalf("while the last report cannot be read: %q", got)
	}
	if st := w.sw.Status(); st.HeldBy != "" || w.told[0].LastSeen != nil || !w.told[0].At.Equal(at(30*time.Minute)) {
		t.Errorf("held by %q, told %+v", st.HeldBy, w.told)
	}
	w.blurred = nil
	if got := w.tick(time.Hour); got != "acme-1:host_stale acme-1:host_down" {
		t.Fatalf("got %q", got)
	}
	for language, want := range map[string]string{
		"en": "Last state: Proxmox VE 8.4.1, 1 of 2 guests running, memory 25%\n",
		"de": "Letzter Stand: Proxmox VE 8.4.1, 1 von 2 Gästen in Betrieb, Arbeitsspeicher 25 %\n",
	} {
		text := message.Write(message.Input{Event: w.told[1], Reader: message.ReaderOf(language, "")}).Render(message.Plain)
		if !strings.Contains(text, want) {
			t.Errorf("%s: %s", language, text)
		}
	}
}

// A text that an agent made as long as a report may be does not keep the decision, in
// which it is one of a thousand hosts, out of the spool.
func TestP24_ALongTextHoldsNoVerdictBack(t *testing.T) {
	w := newWorld(t, active("acme-1"))
	w.reportOf(&hub.Report{HostID: "acme-1", PVEVersion: strings.Repeat("\x01", 1<<20)}, 0)
	w.tick(time.Minute)
	if got := w.tick(30 * time.Minute); got != "acme-1:host_stale" {
		t.Errorf("got %q", got)
	}
}

// However often hosts come back while the others are described, the verdict waits but
// once for a ClickHouse that does not answer.
func TestP25_AVerdictWaitsOnceForWhatWasLastSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const silent, hosts = 5, 100
		spec, answer := hub.FleetSpec{}, clickhouse.Answer{Reported: hosts}
		for i := range hosts {
			id := fmt.Sprintf("c%d-1", i)
			spec.Customers = append(spec.Customers, &hub.Customer{Name: fmt.Sprintf("c%d", i)})
			spec.Hosts = append(spec.Hosts, &hub.Host{ID: id, Customer: fmt.Sprintf("c%d", i), Lifecycle: hub.Active})
			answer.Silences = append(answer.Silences, clickhouse.Silence{HostID: id, Last: hub.Position{Seq: uint64(i + 1)}, LastAt: epoch})
		}
		fleet, err := hub.NewFleet(spec)
		if err != nil {
			t.Fatal(err)
		}
		b, asked := &broken{answer: answer, log: awake(epoch).(eyes).log}, 0
		sw := deadman.New(deadman.Options{Store: b, Backlog: b, Journal: b, Eyes: b, Base: base, Logger: quiet,
			Timing: deadman.TimingFor(base.StaleAfter, 0), Fleet: func() *hub.Fleet { return fleet },
			LastSeen: func(id string) (hub.Receipt, bool) {
				for i := range min(asked, silent-1) { // one comes back with each question
					if id == fmt.Sprintf("c%d-1", i) {
						return hub.Receipt{Position: hub.Position{Seq: 1000}, ReceivedAt: at(31 * time.Minute)}, true
					}
				}
				return hub.Receipt{}, false
			},
			Describe: func(ctx context.Context, _, _ []string) (map[string]clickhouse.Sight, error) {
				asked++
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		if err := sw.Tick(t.Context(), at(time.Minute)); err != nil {
			t.Fatal(err)
		}
		b.answer.Silences = answer.Silences[:silent]
		began := time.Now()
		if err := sw.Tick(t.Context(), at(31*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if st := sw.Status(); st.Events[hub.HostStale] != 1 || asked < silent-1 {
			t.Errorf("asked %d times, %+v", asked, st)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
