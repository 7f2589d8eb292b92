package outbox_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

const (
	childDir = "OUTBOX_CHILD_DIR" // what makes TestChild a process of its own
	childURL = "OUTBOX_CHILD_URL"
	childEnd = "OUTBOX_CHILD_END" // set: no more events, and exit when all are told
)

// poster delivers by HTTP to the recording server.
type poster struct{ url string }

func (p poster) Send(ctx context.Context, m notify.Message) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"?id="+m.ID, strings.NewReader(m.Text.Render(message.Plain)))
	if err != nil {
		return &notify.Error{Class: notify.Invalid}
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return &notify.Error{Class: notify.Unreachable}
	}
	return res.Body.Close()
}

// TestChild is a hub in small, with a spool on a disk: it raises events as fast as it
// can and says which are durable.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("a process of TestP05_KilledAtAnyInstant")
	}
	w := newWorld(-1) // for its fleet
	var sp *spool.Spool
	b := outbox.New(outbox.Options{
		Journal: journalOf(func() *spool.Spool { return sp }), Limit: -1, Fleet: func() *hub.Fleet { return w.fleet },
		Sender: func(ch *hub.Channel) (notify.Sender, error) {
			return poster{os.Getenv(childURL) + "/" + ch.ID()}, nil
		},
	})
	if kept, err := spool.ReadStateIn(filepath.Join(dir, "spool"), outbox.StateName); err == nil {
		if err := b.Restore(kept); err != nil {
			t.Fatal(err)
		}
	}
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), MaxBytes: 64 << 20, VolumeBytes: 1 << 20, Recovered: func(e spool.Entry) { b.Recover(e) }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	if os.Getenv(childEnd) != "" {
		for s := b.Status(); s.Queued > 0 || s.Unrouted > 0; s = b.Status() {
			time.Sleep(5 * time.Millisecond)
		}
		b.Stop()
		return
	}
	for i := 0; ; i++ {
		now := time.Now().UTC().Truncate(time.Millisecond)
		e := hub.Event{ID: fmt.Sprintf("%d-%d", os.Getpid(), i), Type: hub.FleetRejected, At: now, DetectedAt: now, Source: "fleet"}
		if i%2 == 1 {
			e.Type, e.CustomerID, e.HostID = hub.HostNeverReported, "acme", "acme-0"
		}
		body, err := wire.EncodeNotice(hub.Notice{Events: []hub.Event{e}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sp.Append(context.Background(), spool.Record{Kind: hub.KindNotice, Body: body}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("durable", e.ID)
		b.Tell(e)
		if i%50 == 49 {
			if err := sp.WriteState(outbox.StateName, b.Snapshot()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// journalOf is a spool that is opened later.
type journalOf func() *spool.Spool

func (j journalOf) Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	return j().Append(ctx, records...)
}

// recorder is a receiver that counts what it gets, by channel and message.
type recorder struct {
	mu  sync.Mutex
	got map[string]map[string]int
}

func (r *recorder) ServeHTTP(_ http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	channel := strings.TrimPrefix(q.URL.Path, "/")
	if r.got[channel] == nil {
		r.got[channel] = map[string]int{}
	}
	r.got[channel][q.URL.Query().Get("id")]++
}

// TestP05_KilledAtAnyInstant kills a process with SIGKILL again and again: no event
// that was durable is lost, and at most one message a channel and death comes twice.
func TestP05_KilledAtAnyInstant(t *testing.T) {
	deaths := 20
	if testing.Short() {
		deaths = 5
	}
	rec := &recorder{got: map[string]map[string]int{}}
	server := httptest.NewServer(rec)
	defer server.Close()
	dir := t.TempDir()
	durable := map[string]bool{}
	run := func(end string, kill time.Duration) {
		child := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
		child.Env = append(os.Environ(), childDir+"="+dir, childURL+"="+server.URL, childEnd+"="+end)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		began := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "durable "); ok {
				durable[id] = true
				if !began {
					began = true
					time.AfterFunc(kill, func() { _ = child.Process.Kill() })
				}
			}
		}
		if err := child.Wait(); err != nil && end != "" {
			t.Fatalf("the last process: %v", err)
		}
	}
	for i := range deaths {
		run("", time.Duration(3+i*7%60)*time.Millisecond)
	}
	run("1", 0)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(durable) < deaths {
		t.Fatalf("only %d events were durable", len(durable))
	}
	for _, channel := range []string{"fleet/ops", "customer/acme/chat", "customer/acme/mail"} {
		lost, twice := 0, 0
		for id := range durable {
			operators := strings.HasSuffix(id, "0") || strings.HasSuffix(id, "2") || strings.HasSuffix(id, "4") || strings.HasSuffix(id, "6") || strings.HasSuffix(id, "8")
			if n := rec.got[channel][id]; n == 0 && (!operators || channel == "fleet/ops") {
				lost++
			} else if n > 0 && operators && channel != "fleet/ops" {
				t.Errorf("%s was told of %s, which is the operators'", channel, id)
			}
		}
		for _, n := range rec.got[channel] {
			twice += n - 1
		}
		t.Logf("%s: %d messages, %d came again, %d deaths", channel, len(rec.got[channel]), twice, deaths)
		if lost > 0 || twice > deaths {
			t.Errorf("%s: %d of %d durable events are lost, %d came again after %d deaths", channel, lost, len(durable), twice, deaths)
		}
	}
}
