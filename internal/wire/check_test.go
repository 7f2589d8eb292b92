package wire

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestCheckReportAgrees: CheckReport accepts and refuses what DecodeReport does,
// with the same words.
func TestCheckReportAgrees(t *testing.T) {
	bodies := []string{
		string(golden(t, "host-report.golden.json")), string(golden(t, "host-report.full.json")), string(twelveGuests()),
		``, `[]`, `{}`, `{"host_id":"a"`, with(`"guests":3`), with(`"guests":[{"vmid":0}]`), with(`"guests":[],"guests":[]`),
		with(`"cloudflared":{"status":3}`), with(`"maintenance":[]`), with(`"host":{}`), with(`"hoſt":{}`), with(`"backups":null,"x":{"x":[[[]]]}`),
		with(`"deep":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), strings.Replace(with(), `"host":{`, `"host":{"hostname":3,`, 1),
		strings.Replace(with(), `"host":{`, `"host":{"uptime_seconds":-1,`, 1),
	}
	random := rand.New(rand.NewPCG(1, 1))
	for _, seed := range bodies {
		for range 200 {
			bodies = append(bodies, string(mutate(random, []byte(seed))))
		}
	}
	for _, body := range bodies {
		report, err := DecodeReport([]byte(body), received)
		id, checkErr := CheckReport([]byte(body))
		if (err == nil) != (checkErr == nil) || err != nil && err.Error() != checkErr.Error() || err == nil && id != report.HostID {
			t.Errorf("%.80q: %q, %v; decoded: %v", body, id, checkErr, err)
		}
	}
}

func BenchmarkCheckReport(b *testing.B) {
	body := twelveGuests()
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := CheckReport(body); err != nil {
			b.Fatal(err)
		}
	}
}
