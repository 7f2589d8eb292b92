package simulate

import (
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Controller is a made-up controller in a guest: like an [Agent] it remembers what
// it said, and the same seed, guest and times give the same bytes. It is not safe for
// concurrent use.
type Controller struct {
	random            *rand.Rand
	customer, guestID string

	version           string
	apps              []app
	cpu, memory, disk float64 // percent
	startedAt         time.Time
	backupOf          int64 // the day whose backup was told of, counted from the epoch
	backupFailed      bool
	last              time.Time
}

type app struct {
	name, version string
	stopped       bool
}

// NewController returns the controller in one guest of a customer.
func NewController(seed uint64, customer, guestID string) *Controller {
	name := fnv.New64a()
	_, _ = name.Write([]byte(guestID)) // a hash takes everything
	r := rand.New(rand.NewPCG(seed, name.Sum64()))
	c := &Controller{
		random: r, customer: customer, guestID: guestID, version: pick(r, "1.12.0", "1.12.0", "1.11.4"),
		cpu: 2 + 20*r.Float64(), memory: 20 + 50*r.Float64(), disk: 10 + 60*r.Float64(),
	}
	for _, a := range []app{{name: "nextcloud", version: "31.0.4"}, {name: "vaultwarden", version: "1.34.1"}, {name: "paperless", version: "2.17.1"}} {
		if len(c.apps) == 0 || r.IntN(2) == 0 {
			c.apps = append(c.apps, a)
		}
	}
	return c
}

// AppendReport appends to dst the report that the controller sends at this time, and
// returns the extended buffer. Times must not go back.
func (c *Controller) AppendReport(dst []byte, at time.Time) []byte {
	at = at.UTC()
	c.live(at)
	b := c.append(dst, `{"customer_id":"`, c.customer, `","guest_id":"`, c.guestID, `","reported_at":"`)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = c.append(b, `","controller_version":"`, c.version, `","status":"`, c.status(), `","uptime_seconds":`)
	b = strconv.AppendInt(b, int64(at.Sub(c.startedAt)/time.Second), 10)
	for _, part := range []struct {
		name  string
		value float64
	}{{"cpu", c.cpu}, {"memory", c.memory}, {"disk", c.disk}} {
		b = c.append(b, `,"`, part.name, `_percent":`)
		b = strconv.AppendFloat(b, part.value, 'f', 2, 64)
	}
	b = append(b, `,"apps":[`...)
	for i, a := range c.apps {
		if i > 0 {
			b = append(b, ',')
		}
		status := "running"
		if a.stopped {
			status = "stopped"
		}
		b = c.append(b, `{"name":"`, a.name, `","status":"`, status, `","version":"`, a.version, `"}`)
	}
	return c.append(b, `],"backup":{"last_success_at":"`, c.backupAt().Format(time.RFC3339), `","last_status":"`, c.backupStatus(), `"}}`)
}

func (c *Controller) append(b []byte, texts ...string) []byte {
	return append(b, strings.Join(texts, "")...)
}

// AppendEvent appends the event that the controller has to tell of at this time, now
// and then, and returns the extended buffer; false: there is none. Times must not go
// back.
func (c *Controller) AppendEvent(dst []byte, at time.Time) (body []byte, told bool) {
	at = at.UTC()
	c.live(at)
	typ, severity, message := "", "info", ""
	switch chance := c.random.IntN(1000); {
	case chance < 4:
		a := &c.apps[c.random.IntN(len(c.apps))]
		if a.stopped = !a.stopped; a.stopped {
			typ, severity, message = "app_stopped", "warning", a.name+" stopped"
		} else {
			typ, message = "app_started", a.name+" "+a.version+" runs"
		}
	case chance < 6:
		typ, message = "update_available", "controller 1.13.0"
	case chance < 7 && c.backupFailed:
		typ, severity, message = "backup_failed", "critical", "lock timeout"
	default:
		return dst, false
	}
	b := c.append(dst, `{"type":"`, typ, `","severity":"`, severity, `","message":"`, message, `","guest_id":"`, c.guestID, `","at":"`)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	return append(b, `"}`...), true
}

// live lets the controller's life go on until at: its figures wander, and there is
// a backup every night.
func (c *Controller) live(at time.Time) {
	r := c.random
	if c.last.IsZero() {
		c.startedAt = at.Add(-time.Duration(1+r.IntN(30*24)) * time.Hour)
	}
	if c.last.Equal(at) {
		return
	}
	c.last = at
	c.cpu = within(c.cpu+4*(r.Float64()-0.5), 0.1, 100)
	c.memory = within(c.memory+(r.Float64()-0.5), 5, 98)
	c.disk = within(c.disk+0.02*(r.Float64()-0.5), 2, 97)
	if day := at.Unix() / 86400; day != c.backupOf {
		c.backupOf, c.backupFailed = day, r.IntN(50) == 0
	}
}

// backupAt is when the newest backup succeeded: at one in the night.
func (c *Controller) backupAt() time.Time {
	day := c.backupOf - 1
	if c.backupFailed {
		day--
	}
	return time.Unix(day*86400+3600, 0).UTC()
}

func (c *Controller) backupStatus() string {
	if c.backupFailed {
		return "failed"
	}
	return "ok"
}

func (c *Controller) status() string {
	for _, a := range c.apps {
		if a.stopped {
			return "degraded"
		}
	}
	return "healthy"
}
