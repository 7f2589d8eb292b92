package wire

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

var notice = hub.Notice{
	Commits: []hub.FleetCommit{
		{
			Revision: "4b825dc642cb6eb9a060e54bf8d69288fbee4904", Author: "Zoë <zoe@example.com>", CommittedAt: received.Add(-time.Minute),
			Subject: "acme: retire three hosts", Signer: "zoe@example.com",
			Verdict: hub.CommitHeld, Reason: "fleet_held", Why: "it removes 3 of 4 hosts", DecidedAt: received.Add(time.Millisecond),
			Hosts: 1, Removed: 3, BadFiles: math.MaxUint32,
		},
		{Revision: "1f97069", Verdict: hub.CommitApplied, Hosts: 4, Added: 1, Changed: 2}, // zero times stay zero
	},
	Events: []hub.Event{
		{ID: "0123456789abcdef0123456789abcdef", Type: hub.FleetHeld, At: received, DetectedAt: received, Reason: "it removes 3 of 4 hosts", Source: "fleet"},
		{ID: "1", Type: hub.HostFileRejected, CustomerID: "acme", HostID: "acme-5f2c9a1e", At: received, DetectedAt: received, Source: "fleet"},
	},
}

// goldenNotice is on disks: it stays readable.
const goldenNotice = `{"v":1,"commits":[` +
	`{"revision":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","author":"Zoë <zoe@example.com>","committed_at":1780910041000,"subject":"acme: retire three hosts","signer":"zoe@example.com","verdict":"held","reason":"fleet_held","why":"it removes 3 of 4 hosts","decided_at":1780910101001,"hosts":1,"added":0,"removed":3,"changed":0,"bad_files":4294967295},` +
	`{"revision":"1f97069","author":"","committed_at":-62135596800000,"subject":"","signer":"","verdict":"applied","reason":"","why":"","decided_at":-62135596800000,"hosts":4,"added":1,"removed":0,"changed":2,"bad_files":0}],` +
	`"events":[` +
	`{"event_id":"0123456789abcdef0123456789abcdef","type":"fleet_held","customer_id":"","host_id":"","at":1780910101000,"detected_at":1780910101000,"silence_seconds":0,"reason":"it removes 3 of 4 hosts","source":"fleet"},` +
	`{"event_id":"1","type":"host_file_rejected","customer_id":"acme","host_id":"acme-5f2c9a1e","at":1780910101000,"detected_at":1780910101000,"silence_seconds":0,"reason":"","source":"fleet"}]}`

func TestNoticeRoundTrip(t *testing.T) {
	for _, c := range []struct {
		notice hub.Notice
		body   string
	}{
		{notice, goldenNotice},
		{hub.Notice{}, `{"v":1,"commits":[],"events":[]}`},
	} {
		body, err := EncodeNotice(c.notice)
		if err != nil {
			t.Fatal(err)
		}
		if string(body) != c.body {
			t.Errorf("encoded\n%s, want\n%s", body, c.body)
		}
		got, err := DecodeNotice([]byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c.notice) {
			t.Errorf("got %+v, want %+v", got, c.notice)
		}
	}
}

func TestNoticeIsStrict(t *testing.T) {
	for _, c := range [][2]string{
		{`"v":1`, `"v":2`},
		{`"v":1`, `"v":1,"v":1`},
		{`"v":1`, `"v":1,"extra":0`},
		{`"revision":"1f97069"`, `"revision":""`},
		{`"verdict":"held"`, `"verdict":"undecided"`},
		{`"reason":"fleet_held"`, `"reason":""`},
		{`"added":1`, `"added":-1`},
		{`"added":1`, `"added":4294967296`},
		{`"added":1`, `"added":"1"`},
		{`"type":"fleet_held"`, `"type":""`},
		{`"event_id":"1"`, `"event_id":""`},
		{`"host_id":"acme-5f2c9a1e"`, `"host_id":"ACME"`},
		{`"customer_id":"acme"`, `"customer_id":"-"`},
		{`"detected_at":1780910101000`, `"detected_at":1783910101000`}, // the first event's: five weeks later
		{`}]}`, `}]`},
	} {
		broken := strings.Replace(goldenNotice, c[0], c[1], 1)
		if broken == goldenNotice {
			t.Fatalf("%s is not in %s", c[0], goldenNotice)
		}
		if _, err := DecodeNotice([]byte(broken)); err == nil {
			t.Errorf("%s instead of %s was accepted", c[1], c[0])
		}
	}
	if _, err := DecodeNotice(nil); err == nil {
		t.Error("an empty body was accepted")
	}
}

func TestNoticeThatCannotBeReadIsNotWritten(t *testing.T) {
	for name, n := range map[string]hub.Notice{
		"no revision":      {Commits: []hub.FleetCommit{{Verdict: hub.CommitApplied}}},
		"no verdict":       {Commits: []hub.FleetCommit{{Revision: "r"}}},
		"no reason":        {Commits: []hub.FleetCommit{{Revision: "r", Verdict: hub.CommitRejected}}},
		"a negative count": {Commits: []hub.FleetCommit{{Revision: "r", Verdict: hub.CommitApplied, Changed: -1}}},
		"no event id":      {Events: []hub.Event{{Type: hub.FleetFrozen}}},
		"events of two months": {Events: []hub.Event{
			{ID: "1", Type: hub.FleetFrozen, DetectedAt: time.Date(2026, 6, 30, 23, 59, 59, 0, time.UTC)},
			{ID: "2", Type: hub.FleetFrozen, DetectedAt: time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)}}},
		"a silence that is no number": {Events: []hub.Event{{ID: "1", Type: hub.FleetFrozen, SilenceSeconds: math.NaN()}}},
	} {
		if body, err := EncodeNotice(n); err == nil {
			t.Errorf("%s: encoded as %s", name, body)
		}
	}
}

// A commit's author and subject are a stranger's: they never keep a verdict
// from being written down.
func TestNoticeOfAHostileCommit(t *testing.T) {
	body, err := EncodeNotice(hub.Notice{Commits: []hub.FleetCommit{{
		Revision: "r", Verdict: hub.CommitApplied, Author: "\xff\xfe", Subject: strings.Repeat("ö", 1<<20),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := DecodeNotice(body)
	if err != nil {
		t.Fatal(err)
	}
	c := n.Commits[0]
	if c.Author != "\uFFFD" || len(c.Subject) != maxNoticeText || !utf8.ValidString(c.Subject) {
		t.Errorf("author %q, subject of %d bytes", c.Author, len(c.Subject))
	}
}

func FuzzDecodeNotice(f *testing.F) {
	f.Add([]byte(goldenNotice))
	f.Add([]byte(`{"v":1,"commits":[],"events":[]}`))
	f.Add([]byte(`{"v":1,"events":[{"event_id":"1","type":"x","detected_at":-9223372036854775808}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := DecodeNotice(body)
		if err != nil {
			return
		}
		again, err := EncodeNotice(n)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		twice, err := DecodeNotice(again)
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
		third, err := EncodeNotice(twice)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%v; encoded\n%s, then\n%s", err, again, third)
		}
	})
}
