package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metric is a number of another package, shown at /metrics. Value is called at
// every scrape and must be quick.
type Metric struct {
	Name    string            // as "hub_spool_bytes"; a counter's ends in _total
	Help    string            // one sentence, with the unit
	Labels  map[string]string // constant; may be nil
	Counter bool              // it never falls while the process lives
	Value   func() float64
}

// metrics are the server's own counters and everything that /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	replies  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(others []Metric, connections *connectionLimit, bodies *bodies) (*metrics, error) {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		replies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hub_replies_total", Help: "Replies by route, status and reason.",
		}, []string{"route", "status", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hub_request_seconds", Help: "Time from a request's header to its reply, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // to 16 s
		}, []string{"route"}),
	}
	others = append([]Metric{
		{Name: "hub_connections", Help: "Open connections on listen.", Value: func() float64 { return float64(connections.open.Load()) }},
		{Name: "hub_in_flight_bytes", Help: "Memory of request bodies, in bytes.", Value: func() float64 { return float64(bodies.memory.Used()) }},
	}, others...)
	all := []prometheus.Collector{
		m.replies, m.seconds, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, o := range others {
		all = append(all, o.collector())
	}
	for _, c := range all {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

func (m Metric) collector() prometheus.Collector {
	if m.Counter {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: m.Name, Help: m.Help, ConstLabels: m.Labels}, m.Value)
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.Name, Help: m.Help, ConstLabels: m.Labels}, m.Value)
}

// counter returns what counts the replies of a route. Finding a counter by its
// labels costs more than all else that is measured of a request, so it is done
// once for each outcome; there are few.
func (m *metrics) counter(route string) (count func(status int, reason string)) {
	type outcome struct {
		status int
		reason string
	}
	var mu sync.Mutex
	known := make(map[outcome]prometheus.Counter)
	return func(status int, reason string) {
		mu.Lock()
		defer mu.Unlock()
		of := outcome{status, reason}
		c := known[of]
		if c == nil {
			c = m.replies.WithLabelValues(route, strconv.Itoa(status), reason)
			known[of] = c
		}
		c.Inc()
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
