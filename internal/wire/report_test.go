package wire

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
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
