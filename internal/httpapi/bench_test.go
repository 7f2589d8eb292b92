package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkHostReport is the whole way, from a client's socket to the synced
// disk and back, with 128 agents at a time.
func BenchmarkHostReport(b *testing.B) {
	f := serve(b, func(s *settings) { s.maxBytes = 4 << 30 })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	var guests []string
	for i := range 12 {
		guests = append(guests, fmt.Sprintf(`{"vmid":%d,"name":"guest-%02d","status":"running","controller_version":"1.12.0","spec":{"type":"lxc","cores":4,"memory_mb":4096,"disk_gb":32}}`, 101+i, i))
	}
	list := `"guests":[` + strings.Join(guests, ",") + `],"n"`
	var n atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body := bytes.Replace(report(goldenHost, int(n.Add(1))), []byte(`"n"`), []byte(list), 1)
			r, err := http.NewRequest(http.MethodPost, "http://"+f.Addr()+"/api/v1/host-report", bytes.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+f.keys["fleet"].Reveal())
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reports/s")
}
