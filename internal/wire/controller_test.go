package wire

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

func TestGoldenControllerReport(t *testing.T) {
	r, err := DecodeControllerReport(golden(t, "controller-report.golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	uptime, cpu, memory, disk := uint64(86400), 8.25, 43.5, 61.0
	backup := time.Date(2026, 6, 8, 1, 7, 31, 0, time.UTC)
	want := &hub.ControllerReport{
		CustomerID: "acme", GuestID: "acme-5f2c9a1e/101", ReportedAt: time.Date(2026, 6, 8, 9, 16, 0, 0, time.UTC), ControllerVersion: "1.12.0",
		Status: "healthy", UptimeSeconds: &uptime, CPUPercent: &cpu, MemoryPercent: &memory, DiskPercent: &disk,
		LastBackupAt: &backup, LastBackupStatus: "ok",
		Apps: []hub.App{{Name: "nextcloud", Status: "running", Version: "31.0.4"}, {Name: "vaultwarden", Status: "stopped", Version: "1.34.1"}},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
}

// controller returns a controller's report that is right but for the members given,
// which stand in front.
func controller(members ...string) string {
	return like(members, `"customer_id":"acme"`, `"reported_at":"2026-06-08T09:16:00Z"`, `"controller_version":"1.12.0"`)
}

// event is controller for an event.
func event(members ...string) string {
	return like(members, `"type":"backup_failed"`, `"severity":"warning"`, `"message":"no space left"`)
}

func like(members []string, rest ...string) string {
	var kept []string
	seen := map[string]bool{}
	for _, m := range append(members, rest...) {
		name, _, _ := strings.Cut(m, ":")
		if !seen[name] {
			kept = append(kept, m)
		}
		seen[name] = true
	}
	return "{" + strings.Join(kept, ",") + "}"
}

var refusedControllerReports = []struct{ name, body, reason string }{
	{"empty", "", "not_json"},
	{"trailing data", controller() + "{}", "not_json"},
	{"NaN", controller(`"cpu_percent":NaN`), "not_json"},
	{"lone surrogate", controller(`"x":"\ud800"`), "not_json"},
	{"bad UTF-8", controller("\"x\":\"\xff\""), "not_json"},
	{"array", "[" + controller() + "]", "not_object"},
	{"depth 65", controller(`"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), "too_deep"},
	{"no customer", `{"reported_at":"2026-06-08T09:16:00Z","controller_version":"1"}`, "identity"},
	{"no time", `{"customer_id":"acme","controller_version":"1"}`, "identity"},
	{"no version", `{"customer_id":"acme","reported_at":"2026-06-08T09:16:00Z"}`, "identity"},
	{"customer is null", controller(`"customer_id":null`), "identity"},
	{"customer is a path", controller(`"customer_id":"../acme"`), "identity"},
	{"customer escapes to nonsense", controller(`"customer_id":"\u0000"`), "identity"},
	{"time is a number", controller(`"reported_at":7`), "identity"},
	{"version of 65 characters", controller(`"controller_version":"` + strings.Repeat("é", 65) + `"`), "identity"},
	{"guest is a number", controller(`"guest_id":101`), "identity"},
	{"guest is empty", controller(`"guest_id":""`), "identity"},
	{"guest without a host", controller(`"guest_id":"/101"`), "identity"},
	{"guest with a sign", controller(`"guest_id":"acme-1/+1"`), "identity"},
	{"guest 0", controller(`"guest_id":"acme-1/0"`), "identity"},
	{"guest within a guest", controller(`"guest_id":"acme-1/1/1"`), "identity"},
	{"customer twice", `{"customer_id":"acme",` + controller()[1:], "duplicate_name"},
	{"guest twice", controller(`"guest_id":"acme-1/1","guest_id":"acme-1/2"`), "duplicate_name"},
	{"guest twice, escaped", controller(`"guest_id":"acme-1/1","guest\u005fid":"acme-1/2"`), "duplicate_name"},
	{"unknown name twice", controller(`"x":1,"x":2`), "duplicate_name"},
	{"folded customer", controller(`"CUSTOMER_ID":"acme"`), "folded_name"},
	{"folded guest (long s)", controller(`"gueſt_id":"acme-1/1"`), "folded_name"},
	{"folded customer (ligature)", controller(`"cuﬆomer_id":"acme"`), "folded_name"},
}

func TestRefusedControllerReports(t *testing.T) {
	for _, c := range refusedControllerReports {
		r, err := DecodeControllerReport([]byte(c.body))
		_, _, checkErr := CheckControllerReport([]byte(c.body))
		if hub.CodeOf(err) != hub.Invalid || hub.ReasonOf(err) != c.reason || checkErr == nil || checkErr.Error() != err.Error() {
			t.Errorf("%s: %+v, reason %q (%v), checked %v; want %q", c.name, r, hub.ReasonOf(err), err, checkErr, c.reason)
		}
	}
}

// What is left out of a report never costs the sign of life.
func TestAcceptedControllerReportsWithRejects(t *testing.T) {
	for _, c := range []struct {
		name, body string
		apps       int
		want       string // section, position and reason of what was left out
	}{
		{"plain", controller(), 0, ""},
		{"nulls", controller(`"guest_id":null`, `"status":null`, `"uptime_seconds":null`, `"cpu_percent":null`, `"apps":null`, `"backup":null`), 0, ""},
		{"nulls in backup", controller(`"backup":{"last_success_at":null,"last_status":null}`), 0, ""},
		{"unknown names", controller(`"x":{"a":1,"a":2}`, `"Status":7`), 0, ""},
		{"cpu over 100", controller(`"cpu_percent":100.5`), 0, "cpu_percent -1 cpu_percent: wrong type or out of range 100.5"},
		{"memory under 0", controller(`"memory_percent":-0.5`), 0, "memory_percent -1 memory_percent: wrong type or out of range -0.5"},
		{"disk is text", controller(`"disk_percent":"61"`), 0, `disk_percent -1 disk_percent: wrong type or out of range "61"`},
		{"uptime beyond 64 bits", controller(`"uptime_seconds":18446744073709551616`), 0, "uptime_seconds -1 uptime_seconds: wrong type or out of range 18446744073709551616"},
		{"status is long", controller(`"status":"` + strings.Repeat("é", 65) + `"`), 0, `status -1 status: wrong type or out of range "` + strings.Repeat("é", 65) + `"`},
		{"apps is an object", controller(`"apps":{}`), 0, "apps -1 not a list {}"},
		{"an app without a name", controller(`"apps":[{"name":"a"},{"status":"running"}]`), 1, `apps 1 name: not a string, or empty {"status":"running"}`},
		{"an app twice", controller(`"apps":[{"name":"a","version":"1"},{"name":"a","version":"2"}]`), 1, `apps 1 name: an earlier app of this report has it {"name":"a","version":"2"}`},
		{"a name twice in an app", controller(`"apps":[{"name":"a","name":"b"}]`), 0, `apps 0 a name stands twice {"name":"a","name":"b"}`},
		{"backup is a list", controller(`"backup":[]`), 0, "backup -1 not an object []"},
		{"backup without a time", controller(`"backup":{"last_success_at":"yesterday"}`), 0, `backup -1 last_success_at: wrong type or out of range {"last_success_at":"yesterday"}`},
	} {
		r, err := DecodeControllerReport([]byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, i := range r.Rejected {
			got = append(got, strings.Join([]string{i.Section, strconv.Itoa(i.Position), i.Reason, string(i.Item)}, " "))
		}
		if strings.Join(got, "\n") != c.want || len(r.Apps) != c.apps {
			t.Errorf("%s: %d apps, left out %q; want %d, %q", c.name, len(r.Apps), got, c.apps, c.want)
		}
		if customer, guest, err := CheckControllerReport([]byte(c.body)); customer != "acme" || guest != r.GuestID || err != nil {
			t.Errorf("%s: checked as %s, %s, %v", c.name, customer, guest, err)
		}
	}
}

func TestControllerEvents(t *testing.T) {
	for _, c := range []struct {
		name, body, reason string
		want               hub.ControllerEvent
	}{
		{"plain", event(), "", hub.ControllerEvent{Type: "backup_failed", Severity: "warning", Message: "no space left"}},
		{"whole", event(`"guest_id":"acme-1/101"`, `"at":"2026-06-08T11:16:00+02:00"`, `"x":{"y":1}`), "", hub.ControllerEvent{Type: "backup_failed", Severity: "warning",
			Message: "no space left", GuestID: "acme-1/101", At: time.Date(2026, 6, 8, 9, 16, 0, 0, time.UTC)}},
		{"nulls", event(`"guest_id":null`, `"at":null`), "", hub.ControllerEvent{Type: "backup_failed", Severity: "warning", Message: "no space left"}},
		{"empty object", `{}`, "event", hub.ControllerEvent{}},
		{"no message", `{"type":"x","severity":"info"}`, "event", hub.ControllerEvent{}},
		{"message is empty", event(`"message":""`), "event", hub.ControllerEvent{}},
		{"message is null", event(`"message":null`), "event", hub.ControllerEvent{}},
		{"severity in capitals", event(`"severity":"INFO"`), "event", hub.ControllerEvent{}},
		{"severity is a number", event(`"severity":1`), "event", hub.ControllerEvent{}},
		{"type is empty", event(`"type":""`), "event", hub.ControllerEvent{}},
		{"type is long", event(`"type":"` + strings.Repeat("x", 65) + `"`), "event", hub.ControllerEvent{}},
		{"guest is no guest", event(`"guest_id":"acme-1"`), "identity", hub.ControllerEvent{}},
		{"at is no time", event(`"at":"2026-06-08 09:16:00"`), "event", hub.ControllerEvent{}},
		{"type twice", event(`"type":"a","type":"b"`), "duplicate_name", hub.ControllerEvent{}},
		{"folded type", event(`"TYPE":"a"`), "folded_name", hub.ControllerEvent{}},
		{"folded message (ß)", event(`"meßage":"a"`), "folded_name", hub.ControllerEvent{}},
		{"not JSON", event() + ",", "not_json", hub.ControllerEvent{}},
		{"a list", "[]", "not_object", hub.ControllerEvent{}},
	} {
		e, err := DecodeControllerEvent([]byte(c.body))
		if c.reason == "" && (err != nil || *e != c.want) || c.reason != "" && (hub.CodeOf(err) != hub.Invalid || hub.ReasonOf(err) != c.reason) {
			t.Errorf("%s: %+v, %v; want %+v, reason %q", c.name, e, err, c.want, c.reason)
		}
	}
}

func TestControllerReplies(t *testing.T) {
	for got, want := range map[string]string{
		string(ControllerReply(false)): `{"status":"ok","blocked":false}` + "\n",
		string(ControllerReply(true)):  `{"status":"ok","blocked":true}` + "\n",
		string(EventReply()):           `{"status":"ok"}` + "\n",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The fuzz targets' short form: the same in every run.
func TestMutatedControllerBodies(t *testing.T) {
	seeds := [][]byte{golden(t, "controller-report.golden.json"), []byte(event(`"guest_id":"acme-1/101"`, `"at":"2026-06-08T11:16:00Z"`))}
	for _, c := range refusedControllerReports {
		seeds = append(seeds, []byte(c.body))
	}
	random := rand.New(rand.NewPCG(9, 16))
	accepted := 0
	for range 1000 {
		for _, seed := range seeds {
			body := mutate(random, seed)
			if checkControllerBody(t, body) {
				accepted++
			}
		}
	}
	if accepted < 100 {
		t.Errorf("only %d of the mutants were accepted: they are too wild to tell anything", accepted)
	}
}

func FuzzControllerBodies(f *testing.F) {
	f.Add(golden(f, "controller-report.golden.json"))
	f.Add([]byte(event(`"guest_id":"acme-1/101"`, `"at":"2026-06-08T11:16:00Z"`)))
	for _, c := range refusedControllerReports {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkControllerBody(t, body) })
}

// checkControllerBody reads a body as a report and as an event and says whether it
// is either.
func checkControllerBody(t *testing.T, body []byte) (accepted bool) {
	r, err := DecodeControllerReport(body)
	customer, guest, checkErr := CheckControllerReport(body)
	e, eventErr := DecodeControllerEvent(body)
	for _, err := range []error{err, eventErr} {
		if err != nil && hub.CodeOf(err) != hub.Invalid {
			t.Fatalf("code %d for %q: %v", hub.CodeOf(err), body, err)
		}
	}
	if (err == nil) != (checkErr == nil) || err != nil && err.Error() != checkErr.Error() {
		t.Fatalf("decoded: %v; checked: %v; of %q", err, checkErr, body)
	}
	if eventErr == nil && (e.Type == "" || e.Message == "" || !utf8.ValidString(e.Message) || e.GuestID != "" && !hub.ValidGuestID(e.GuestID)) {
		t.Fatalf("accepted event %+v", e)
	}
	if err != nil {
		return eventErr == nil
	}
	if !hub.ValidCustomerName(r.CustomerID) || customer != r.CustomerID || guest != r.GuestID || guest != "" && !hub.ValidGuestID(guest) {
		t.Fatalf("accepted report %+v, checked as %q %q", r, customer, guest)
	}
	names := map[string]bool{}
	for _, a := range r.Apps {
		if a.Name == "" || names[a.Name] {
			t.Fatalf("accepted app %+v", a)
		}
		names[a.Name] = true
	}
	for _, p := range []*float64{r.CPUPercent, r.MemoryPercent, r.DiskPercent} {
		if p != nil && (*p < 0 || *p > 100) {
			t.Fatalf("%v per cent", *p)
		}
	}
	for _, it := range r.Rejected {
		if len(it.Item) > maxRejectedItem || !utf8.Valid(it.Item) || it.Reason == "" || it.Section == "" {
			t.Fatalf("rejected item %+v", it)
		}
	}
	return true
}

func BenchmarkCheckControllerReport(b *testing.B) {
	body := golden(b, "controller-report.golden.json")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, _, err := CheckControllerReport(body); err != nil {
			b.Fatal(err)
		}
	}
}
