package wire

import (
	"reflect"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// The lists of the contract's full report, each element as it stands there.
func TestListsOfTheFullReport(t *testing.T) {
	r, err := DecodeReport(golden(t, "host-report.full.json"), received)
	if err != nil || len(r.Rejected) > 0 {
		t.Fatalf("%v, rejected: %v", err, r.Rejected)
	}
	day := func(d, hour, minute, second int) time.Time {
		return time.Date(2026, 6, d, hour, minute, second, 0, time.UTC)
	}
	for _, c := range []struct{ got, want any }{
		{r.StorageTargets, []hub.StorageTarget{
			{Name: "local-zfs", Type: "zfspool", Status: "available", TotalBytes: 1099511627776, UsedBytes: 549755813888},
			{Name: "pbs-main", Type: "pbs", Status: "available", TotalBytes: 8796093022208, UsedBytes: 2199023255552}}},
		{r.Backups, []hub.Backup{
			{VMID: 101, Target: "pbs-main", Status: "ok", StartedAt: day(8, 1, 0, 0), FinishedAt: day(8, 1, 7, 31), SizeBytes: 4294967296},
			{VMID: 102, Target: "pbs-main", Status: "failed", Error: "lock timeout", StartedAt: day(8, 1, 8, 0), FinishedAt: day(8, 1, 8, 4)}}},
		{r.RestoreTests, []hub.RestoreTest{{VMID: 101, BackupTime: day(7, 1, 0, 0), TestedAt: day(7, 4, 0, 0), Status: "ok", DurationSeconds: 311}}},
		{r.PBSSnapshots, []hub.PBSSnapshot{
			{Datastore: "main", VMID: 101, TakenAt: day(8, 1, 0, 0), SizeBytes: 4294967296, Verified: true},
			{Datastore: "main", VMID: 200, TakenAt: day(8, 1, 20, 0), SizeBytes: 68719476736}}},
		{r.AuditTail, []hub.AuditEntry{{At: day(8, 9, 20, 11), Actor: "root@pam", Action: "guest.pause", Detail: "vmid=102"}}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("got  %+v\nwant %+v", c.got, c.want)
		}
	}
	if !r.Backups[0].Succeeded() || r.Backups[1].Succeeded() || !r.RestoreTests[0].Succeeded() {
		t.Error("what succeeded is not told apart")
	}
	running := r.Backups[0]
	if running.FinishedAt = (time.Time{}); running.Succeeded() {
		t.Error("a backup that runs has succeeded")
	}
}

// A bad element leaves its neighbours alone, and of two targets of one name the
// first counts.
func TestBadElementsLeaveTheirNeighbours(t *testing.T) {
	r, err := DecodeReport([]byte(with(`"backups":[{"vmid":1,"started_at":"2026-06-08T01:00:00Z"},{"vmid":2},{"vmid":3,"started_at":"2026-06-08T02:00:00Z"}]`,
		`"storage_targets":[{"name":"a","type":"x"},{"name":"a","type":"y"},{"name":"b"}]`)), received)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Backups) != 2 || r.Backups[0].VMID != 1 || r.Backups[1].VMID != 3 {
		t.Errorf("backups: %+v", r.Backups)
	}
	if want := []hub.StorageTarget{{Name: "a", Type: "x"}, {Name: "b"}}; !reflect.DeepEqual(r.StorageTargets, want) {
		t.Errorf("targets: %+v", r.StorageTargets)
	}
	if len(r.Rejected) != 2 || r.Rejected[1].Reason != errNameTaken.Error() || r.Rejected[1].Position != 1 {
		t.Errorf("rejected: %v", r.Rejected)
	}
}

func BenchmarkDecodeFullReport(b *testing.B) {
	body := golden(b, "host-report.full.json")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeReport(body, received); err != nil {
			b.Fatal(err)
		}
	}
}
