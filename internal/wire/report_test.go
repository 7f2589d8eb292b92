package wire

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

var received = time.Date(2026, 6, 8, 9, 15, 1, 0, time.UTC)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// with returns a report that is right but for the replaced or added text: the
// members given stand in front, those of the same name are left out.
func with(members ...string) string {
	all := append(members, `"host_id":"acme-1"`, `"reported_at":"2026-06-08T09:15:00Z"`, `"agent_version":"0.3.0"`, `"host":{}`)
	seen := map[string]bool{}
	var kept []string
	for _, m := range all {
		name, _, _ := strings.Cut(m, ":")
		if seen[name] {
			continue
		}
		seen[name] = true
		kept = append(kept, m)
	}
	return "{" + strings.Join(kept, ",") + "}"
}

func TestGoldenReport(t *testing.T) {
	r, err := DecodeReport(golden(t, "host-report.golden.json"), received)
	if err != nil {
		t.Fatal(err)
	}
	u := func(n uint64) *uint64 { return &n }
	cpu := 12.5
	spec := func(cores, memory, disk int) []byte {
		return fmt.Appendf(nil, "{\n        \"type\": \"lxc\",\n        \"cores\": %d,\n        \"memory_mb\": %d,\n        \"disk_gb\": %d\n      }", cores, memory, disk)
	}
	want := &hub.Report{
		HostID: "acme-5f2c9a1e", ReportedAt: time.Date(2026, 6, 8, 9, 15, 0, 0, time.UTC), AgentVersion: "0.3.0",
		Hostname: "pve-acme-01", PVEVersion: "8.4.1", Kernel: "6.8.12-10-pve", BootID: "0d5e3c9a-7f41-4a8e-9b53-5f0f2a6b1c77",
		UptimeSeconds: u(1209600), CPUCount: u(16), CPUPercent: &cpu, LoadAverage: []float64{1.92, 2.05, 2.11},
		MemoryTotalBytes: u(68719476736), MemoryUsedBytes: u(25769803776),
		DiskTotalBytes: u(1099511627776), DiskUsedBytes: u(274877906944),
		CloudflaredStatus: "active",
		Guests: []hub.Guest{
			{VMID: 101, Name: "controller", Status: "running", ControllerVersion: "1.12.0", Spec: spec(4, 4096, 32)},
			{VMID: 102, Name: "staging", Status: "stopped", ControllerVersion: "1.11.4", Spec: spec(2, 2048, 16)},
		},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if r.GuestRunning() != 1 || *r.MemPercent() != 37.5 || *r.DiskPercent() != 25 {
		t.Errorf("derived: running %d, memory %v, disk %v", r.GuestRunning(), *r.MemPercent(), *r.DiskPercent())
	}
}

func TestFullReportHasNothingRejected(t *testing.T) {
	r, err := DecodeReport(golden(t, "host-report.full.json"), received)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rejected) != 0 || len(r.Guests) != 3 || r.CloudflaredStatus != "degraded" {
		t.Errorf("guests %d, cloudflared %q, rejected %+v", len(r.Guests), r.CloudflaredStatus, r.Rejected)
	}
}

func nested(depth int) string {
	// The report itself is one level.
	return with(`"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1))
}

func TestRefusedReports(t *testing.T) {
	for _, c := range refusedReports {
		t.Run(c.name, func(t *testing.T) {
			r, err := DecodeReport([]byte(c.body), received)
			if err == nil {
				t.Fatalf("accepted: %+v", r)
			}
			if hub.CodeOf(err) != hub.Invalid || hub.ReasonOf(err) != c.reason {
				t.Errorf("code %d, reason %q (%v); want %d, %q", hub.CodeOf(err), hub.ReasonOf(err), err, hub.Invalid, c.reason)
			}
		})
	}
}

// refusedReports are the bodies that cost a whole report; the fuzzer begins with
// them as well.
var refusedReports = []struct{ name, body, reason string }{
	{"empty", "", "not_json"},
	{"space", " \n", "not_json"},
	{"null", "null", "not_object"},
	{"array", "[" + with() + "]", "not_object"},
	{"string", `"x"`, "not_object"},
	{"truncated", with()[:40], "not_json"},
	{"trailing data", with() + " {}", "not_json"},
	{"trailing garbage", with() + "x", "not_json"},
	{"trailing comma", with(`"x":[1,]`), "not_json"},
	{"comment", with(`"x":/**/1`), "not_json"},
	{"byte order mark", "\ufeff" + with(), "not_json"},
	{"bad UTF-8", with("\"x\":\"\xff\""), "not_json"},
	{"bad UTF-8 in a name", with("\"x\xff\":1"), "not_json"},
	{"bad UTF-8 in a guest", with("\"guests\":[{\"vmid\":1,\"name\":\"\xc3\"}]"), "not_json"},
	{"surrogate in UTF-8", with("\"x\":\"\xed\xa0\x80\""), "not_json"},
	{"lone surrogate", with(`"x":"\ud800"`), "not_json"},
	{"lone low surrogate", with(`"x":"\udc00a"`), "not_json"},
	{"lone surrogate in a guest", with(`"guests":[{"vmid":1,"name":"\ud800"}]`), "not_json"},
	{"NaN", with(`"x":NaN`), "not_json"},
	{"Infinity", with(`"host":{"cpu_percent":Infinity}`), "not_json"},
	{"leading zero", with(`"x":01`), "not_json"},
	{"control character", with("\"x\":\"\n\""), "not_json"},
	{"depth 65", nested(65), "too_deep"},
	{"depth 65 in a guest", with(`"guests":[{"vmid":1,"spec":` + strings.Repeat(`{"a":`, 62) + "1" + strings.Repeat("}", 62) + "}]"), "too_deep"},

	{"host_id twice", `{"host_id":"acme-1",` + with()[1:], "duplicate_name"},
	{"host_id twice, escaped", `{"host\u005fid":"acme-1",` + with()[1:], "duplicate_name"},
	{"an unknown name twice", `{"x":1,"x":1,` + with()[1:], "duplicate_name"},
	{"a list twice", `{"guests":[],"guests":[],` + with()[1:], "duplicate_name"},
	{"a name twice among many", with(`"a1":0`, `"a2":0`, `"a3":0`, `"a4":0`, `"a5":0`, `"a6":0`, `"a7":0`, `"a8":0`, `"a9":0`, `"b1":0`, `"b2":0`, `"b3":0`, `"b4":0`, `"b\u0034":0`), "duplicate_name"},
	{"a name twice in host", with(`"host":{"kernel":"a","kernel":"a"}`), "duplicate_name"},
	{"an unknown name twice in host", with(`"host":{"x":1,"x":1}`), "duplicate_name"},
	{"case", with(`"Host_ID":"acme-1"`), "folded_name"},
	{"long s", with(`"hoſt_id":"acme-1"`), "folded_name"},
	{"long s, escaped", with(`"ho\u017ft_id":"acme-1"`), "folded_name"},
	{"ligature", with(`"hoﬆ":{}`), "folded_name"},
	{"dotted capital i", with(`"host_İd":"acme-1"`), "folded_name"},
	{"dotless i", with(`"host_ıd":"acme-1"`), "folded_name"},
	{"REPORTED_AT", with(`"REPORTED_AT":1`), "folded_name"},
	{"Host", with(`"Host":{}`), "folded_name"},

	{"no host_id", `{"reported_at":"2026-06-08T09:15:00Z","agent_version":"1","host":{}}`, "identity"},
	{"no reported_at", `{"host_id":"a","agent_version":"1","host":{}}`, "identity"},
	{"no agent_version", `{"host_id":"a","reported_at":"2026-06-08T09:15:00Z","host":{}}`, "identity"},
	{"no host", `{"host_id":"a","reported_at":"2026-06-08T09:15:00Z","agent_version":"1"}`, "identity"},
	{"host_id null", with(`"host_id":null`), "identity"},
	{"host_id number", with(`"host_id":1`), "identity"},
	{"host_id empty", with(`"host_id":""`), "identity"},
	{"host_id upper case", with(`"host_id":"Acme"`), "identity"},
	{"host_id with slash", with(`"host_id":"a/b"`), "identity"},
	{"host_id too long", with(`"host_id":"` + strings.Repeat("a", 129) + `"`), "identity"},
	{"reported_at number", with(`"reported_at":1780910100`), "identity"},
	{"reported_at date", with(`"reported_at":"2026-06-08"`), "identity"},
	{"reported_at without zone", with(`"reported_at":"2026-06-08T09:15:00"`), "identity"},
	{"reported_at hour of one digit", with(`"reported_at":"2026-06-08T9:15:00Z"`), "identity"},
	{"reported_at hour of one digit, offset", with(`"reported_at":"2026-06-08T9:15:00+02:00"`), "identity"},
	{"reported_at decimal comma", with(`"reported_at":"2026-06-08T09:15:00,5Z"`), "identity"},
	{"reported_at offset of a day", with(`"reported_at":"2026-06-08T09:15:00+24:00"`), "identity"},
	{"reported_at offset of 60 minutes", with(`"reported_at":"2026-06-08T09:15:00-01:60"`), "identity"},
	{"reported_at 30 February", with(`"reported_at":"2026-02-30T09:15:00Z"`), "identity"},
	{"agent_version too long", with(`"agent_version":"` + strings.Repeat("v", 65) + `"`), "identity"},
	{"agent_version null", with(`"agent_version":null`), "identity"},
	{"host null", with(`"host":null`), "host"},
	{"host list", with(`"host":[]`), "host"},
	{"hostname number", with(`"host":{"hostname":1}`), "host"},
	{"cpu_percent string", with(`"host":{"cpu_percent":"12.5"}`), "host"},
	{"memory string", with(`"host":{"memory_total_bytes":"1"}`), "host"},
	{"memory object", with(`"host":{"memory_used_bytes":{}}`), "host"},
	{"uptime bool", with(`"host":{"uptime_seconds":true}`), "host"},
	{"load_average number", with(`"host":{"load_average":1}`), "host"},
	{"load_average of strings", with(`"host":{"load_average":["1",2,3]}`), "host"},
}

func TestAcceptedWithRejects(t *testing.T) {
	type rejects = []hub.RejectedItem
	one := func(section string, position int, reason, item string) rejects {
		return rejects{{Section: section, Position: position, Reason: reason, Item: []byte(item)}}
	}
	long := `"` + strings.Repeat("é", 600) + `"`
	for _, c := range []struct {
		name, body string
		guests     int
		want       rejects
	}{
		{"plain", with(), 0, nil},
		{"around space", " \r\n\t" + with() + "\n", 0, nil},
		{"depth 64", nested(64), 0, nil},
		{"brackets in strings", with(`"x":"` + strings.Repeat("[", 100) + `"`), 0, nil},
		{"unknown names", with(`"x":{"a":1,"a":2}`, `"Guests":1`, `"hosts":1`), 0, nil},
		{"names fold in host only", with(`"host":{"KERNEL":1,"host_ID":2}`), 0, nil},
		{"null lists", with(`"guests":null`, `"backups":null`, `"audit_tail":null`, `"cloudflared":null`, `"maintenance":null`), 0, nil},
		{"null in host", with(`"host":{"kernel":null,"cpu_percent":null,"cpu_count":null,"load_average":null}`), 0, nil},
		{"agent_version of 64 characters", with(`"agent_version":"` + strings.Repeat("é", 64) + `"`), 0, nil},

		{"cpu over 100", with(`"host":{"cpu_percent":100.5}`), 0, one("host", -1, "cpu_percent: not between 0 and 100", "100.5")},
		{"cpu huge", with(`"host":{"cpu_percent":1e999}`), 0, one("host", -1, "cpu_percent: not between 0 and 100", "1e999")},
		{"memory negative", with(`"host":{"memory_used_bytes":-1}`), 0, one("host", -1, "memory_used_bytes: not an unsigned integer of 64 bits", "-1")},
		{"disk fraction", with(`"host":{"disk_used_bytes":1.5}`), 0, one("host", -1, "disk_used_bytes: not an unsigned integer of 64 bits", "1.5")},
		{"disk over 64 bits", with(`"host":{"disk_total_bytes":18446744073709551616}`), 0, one("host", -1, "disk_total_bytes: not an unsigned integer of 64 bits", "18446744073709551616")},
		{"load of two", with(`"host":{"load_average":[1, 2]}`), 0, one("host", -1, "load_average: not three numbers of at least 0", "[1, 2]")},
		{"load negative", with(`"host":{"load_average":[-1,2,3]}`), 0, one("host", -1, "load_average: not three numbers of at least 0", "[-1,2,3]")},
		{"load empty", with(`"host":{"load_average":[]}`), 0, nil},

		{"guests no list", with(`"guests":{"vmid":1}`), 0, one("guests", -1, "not a list", `{"vmid":1}`)},
		{"guest of little", with(`"guests":[{"vmid":1},{"vmid":4294967295,"name":null,"spec":null}]`), 2, nil},
		{"guest no object", with(`"guests":[{"vmid":1}, 7]`), 1, one("guests", 1, "not an object", "7")},
		{"guest null", with(`"guests":[null]`), 0, one("guests", 0, "not an object", "null")},
		{"guest without vmid", with(`"guests":[{"name":"x"}]`), 0, one("guests", 0, errVMID.Error(), `{"name":"x"}`)},
		{"guest vmid 0", with(`"guests":[{"vmid":0}]`), 0, one("guests", 0, errVMID.Error(), `{"vmid":0}`)},
		{"guest vmid string", with(`"guests":[{"vmid":"1"}]`), 0, one("guests", 0, errVMID.Error(), `{"vmid":"1"}`)},
		{"guest vmid over 32 bits", with(`"guests":[{"vmid":4294967296}]`), 0, one("guests", 0, errVMID.Error(), `{"vmid":4294967296}`)},
		{"guest status number", with(`"guests":[{"vmid":1,"status":1}]`), 0, one("guests", 0, "status: not a string", `{"vmid":1,"status":1}`)},
		{"guest spec list", with(`"guests":[{"vmid":1,"spec":[]}]`), 0, one("guests", 0, "spec: not an object", `{"vmid":1,"spec":[]}`)},
		{"guest name twice", with(`"guests":[{"vmid":1,"vmid":1},{"vmid":2}]`), 1, one("guests", 0, "a name stands twice", `{"vmid":1,"vmid":1}`)},
		{"guest spec name twice", with(`"guests":[{"vmid":1,"spec":{"a":[{"b":1,"b":2}]}}]`), 0, one("guests", 0, "a name stands twice", `{"vmid":1,"spec":{"a":[{"b":1,"b":2}]}}`)},
		{"guest twice", with(`"guests":[{"vmid":1,"name":"a"},{"vmid":1,"name":"b"}]`), 1, one("guests", 1, errVMIDTwice.Error(), `{"vmid":1,"name":"b"}`)},
		{"a bad guest's vmid is free", with(`"guests":[{"vmid":1,"name":1},{"vmid":1}]`), 1, one("guests", 0, "name: not a string", `{"vmid":1,"name":1}`)},
		{"item cut at a character", with(`"guests":` + long), 0, one("guests", -1, "not a list", long[:1023])},

		{"cloudflared no object", with(`"cloudflared":"active"`), 0, one("cloudflared", -1, "not an object", `"active"`)},
		{"cloudflared status number", with(`"cloudflared":{"status":1}`), 0, one("cloudflared", -1, errCloudflared.Error(), `{"status":1}`)},
		{"cloudflared status too long", with(`"cloudflared":{"status":"` + strings.Repeat("x", 33) + `"}`), 0, one("cloudflared", -1, errCloudflared.Error(), `{"status":"`+strings.Repeat("x", 33)+`"}`)},
		{"cloudflared name twice", with(`"cloudflared":{"status":"a","status":"b"}`), 0, one("cloudflared", -1, "a name stands twice", `{"status":"a","status":"b"}`)},
		{"maintenance list", with(`"maintenance":[]`), 0, one("maintenance", -1, "not an object", `[]`)},
		{"maintenance without until", with(`"maintenance":{"reason":"x"}`), 0, one("maintenance", -1, errUntil.Error(), `{"reason":"x"}`)},
		{"maintenance until no time", with(`"maintenance":{"until":"soon"}`), 0, one("maintenance", -1, errUntil.Error(), `{"until":"soon"}`)},
		{"maintenance reason number", with(`"maintenance":{"until":"2026-06-08T10:00:00Z","reason":1}`), 0, one("maintenance", -1, errReason.Error(), `{"until":"2026-06-08T10:00:00Z","reason":1}`)},

		{"backups no list", with(`"backups":"none"`), 0, one("backups", -1, "not a list", `"none"`)},
		{"backup without vmid", with(`"backups":[{"started_at":"2026-06-08T01:00:00Z"}]`), 0, one("backups", 0, "vmid: missing", `{"started_at":"2026-06-08T01:00:00Z"}`)},
		{"backup size negative", with(`"backups":[{"vmid":1,"started_at":"2026-06-08T01:00:00Z","size_bytes":-1}]`), 0, one("backups", 0, "size_bytes: wrong type or out of range", `{"vmid":1,"started_at":"2026-06-08T01:00:00Z","size_bytes":-1}`)},
		{"backup still running", with(`"backups":[{"vmid":1,"started_at":"2026-06-08T01:00:00Z","finished_at":null,"x":[]}]`), 0, nil},
		{"backup name twice", with(`"backups":[{"vmid":1,"x":{"a":1,"a":1}}]`), 0, one("backups", 0, "a name stands twice", `{"vmid":1,"x":{"a":1,"a":1}}`)},
		{"restore test number", with(`"restore_tests":[3]`), 0, one("restore_tests", 0, "not an object", `3`)},
		{"restore test without time", with(`"restore_tests":[{"vmid":1}]`), 0, one("restore_tests", 0, "tested_at: missing", `{"vmid":1}`)},
		{"snapshot verified string", with(`"pbs_snapshots":[{"vmid":1,"taken_at":"2026-06-08T01:00:00Z","verified":"yes"}]`), 0, one("pbs_snapshots", 0, "verified: wrong type or out of range", `{"vmid":1,"taken_at":"2026-06-08T01:00:00Z","verified":"yes"}`)},
		{"storage target without name", with(`"storage_targets":[{}]`), 0, one("storage_targets", 0, "name: missing", `{}`)},
		{"audit entry bad time", with(`"audit_tail":[{"at":"yesterday"}]`), 0, one("audit_tail", 0, "at: wrong type or out of range", `{"at":"yesterday"}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := DecodeReport([]byte(c.body), received)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Guests) != c.guests || !reflect.DeepEqual(r.Rejected, c.want) {
				t.Errorf("guests %d, rejected %+v; want %d, %+v", len(r.Guests), r.Rejected, c.guests, c.want)
			}
			if r.CPUPercent != nil || r.MemoryUsedBytes != nil || r.DiskTotalBytes != nil || r.LoadAverage != nil || r.MaintenanceUntil != nil || r.CloudflaredStatus != "" {
				t.Errorf("something rejected was kept: %+v", r)
			}
		})
	}
}

func TestMaintenanceIsJudgedByTheReceiveTime(t *testing.T) {
	body := []byte(with(`"maintenance":{"until":"2026-06-09T11:15:01+02:00","reason":"disk swap"}`))
	r, err := DecodeReport(body, received) // exactly 24 h ahead
	if err != nil {
		t.Fatal(err)
	}
	if r.MaintenanceUntil == nil || !r.MaintenanceUntil.Equal(received.Add(24*time.Hour)) || r.MaintenanceReason != "disk swap" {
		t.Errorf("maintenance %v %q, rejected %+v", r.MaintenanceUntil, r.MaintenanceReason, r.Rejected)
	}
	r, err = DecodeReport(body, received.Add(-time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if r.MaintenanceUntil != nil || len(r.Rejected) != 1 || r.Rejected[0].Reason != errUntilTooLate.Error() {
		t.Errorf("maintenance %v, rejected %+v", r.MaintenanceUntil, r.Rejected)
	}
}

func TestRejectedItemsAreBounded(t *testing.T) {
	r, err := DecodeReport([]byte(with(`"guests":[`+strings.Repeat("0,", 4999)+"0]")), received)
	if err != nil {
		t.Fatal(err)
	}
	last := r.Rejected[len(r.Rejected)-1]
	if len(r.Rejected) != maxRejected || last.Position != -1 || last.Section != "guests" || last.Reason != "4001 more items were rejected" {
		t.Errorf("%d rejected, the last %+v", len(r.Rejected), last)
	}
}

func TestManyGuests(t *testing.T) {
	var guests []string
	for i := range 5000 {
		guests = append(guests, fmt.Sprintf(`{"vmid":%d}`, i+1))
	}
	guests = append(guests, `{"vmid":77}`, `{"vmid":7}`)
	r, err := DecodeReport([]byte(with(`"guests":[`+strings.Join(guests, ",")+"]")), received)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Guests) != 5000 || len(r.Rejected) != 2 {
		t.Errorf("%d guests, %d rejected", len(r.Guests), len(r.Rejected))
	}
}

func FuzzDecodeReport(f *testing.F) {
	f.Add(golden(f, "host-report.golden.json"))
	f.Add(golden(f, "host-report.full.json"))
	f.Add(twelveGuests())
	f.Add([]byte(with(`"guests":[{"vmid":1,"spec":{"a":[{"b":1,"b":2}]}},null,"\"",{"x":"\\"}]`, `"maintenance":{"until":"2026-06-08T10:00:00Z"}`)))
	f.Add([]byte(`{"host":{"load_average":[1,-2e9]},"backups":[{"vmid":1}],"cloudflared":{"status":"\u0041"}}`))
	for _, c := range refusedReports {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := DecodeReport(body, received)
		again, errAgain := DecodeReport(body, received)
		if !reflect.DeepEqual(r, again) || (err == nil) != (errAgain == nil) {
			t.Fatalf("two decodes differ: %+v %v, %+v %v", r, err, again, errAgain)
		}
		if err != nil {
			if hub.CodeOf(err) != hub.Invalid {
				t.Fatalf("code %d for a body: %v", hub.CodeOf(err), err)
			}
			return
		}
		if !hub.ValidHostID(r.HostID) || !utf8.ValidString(r.AgentVersion) || utf8.RuneCountInString(r.AgentVersion) > 64 {
			t.Fatalf("accepted without an identity: %+v", r)
		}
		seen := map[uint32]bool{}
		for _, g := range r.Guests {
			if g.VMID == 0 || seen[g.VMID] || g.Spec != nil && g.Spec[0] != '{' {
				t.Fatalf("accepted guest %+v", g)
			}
			seen[g.VMID] = true
		}
		for _, it := range r.Rejected {
			if len(it.Item) > maxRejectedItem || !utf8.Valid(it.Item) || it.Reason == "" || it.Section == "" || it.Position < -1 || it.Position >= len(body) {
				t.Fatalf("rejected item %+v", it)
			}
		}
		if depth := byLibrary(string(body)).deepest; len(r.Rejected) > maxRejected || depth > maxDepth {
			t.Fatalf("accepted with %d rejected items, %d deep", len(r.Rejected), depth)
		}
	})
}

// twelveGuests is a report of the usual size: about 2.6 KB.
func twelveGuests() []byte {
	var guests []string
	for i := range 12 {
		guests = append(guests, fmt.Sprintf(`{"vmid": %d, "name": "guest-%02d", "status": "running", "controller_version": "1.12.0", "spec": {"type": "lxc", "cores": 4, "memory_mb": 4096, "disk_gb": 32}}`, 101+i, i))
	}
	return []byte(strings.NewReplacer("GUESTS", strings.Join(guests, ",\n    ")).Replace(`{
  "host_id": "acme-5f2c9a1e", "reported_at": "2026-06-08T09:15:00Z", "agent_version": "0.3.0",
  "host": {"hostname": "pve-acme-01", "pve_version": "8.4.1", "kernel": "6.8.12-10-pve", "boot_id": "0d5e3c9a-7f41-4a8e-9b53-5f0f2a6b1c77",
    "uptime_seconds": 1209600, "cpu_count": 16, "cpu_percent": 12.5, "load_average": [1.92, 2.05, 2.11],
    "memory_total_bytes": 68719476736, "memory_used_bytes": 25769803776, "disk_total_bytes": 1099511627776, "disk_used_bytes": 274877906944},
  "guests": [GUESTS],
  "cloudflared": {"status": "active"}, "storage_targets": [], "backups": [], "restore_tests": [], "pbs_snapshots": [], "audit_tail": []
}`))
}

func BenchmarkDecodeReport(b *testing.B) {
	body := twelveGuests()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeReport(body, received); err != nil {
			b.Fatal(err)
		}
	}
}
