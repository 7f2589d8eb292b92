package clickhouse

import (
	"fmt"
	"time"

	"felhom.eu/hub/internal/hub"
)

// AddDispatch adds what became of messages. Routes have no rows.
func (b *Batch) AddDispatch(at hub.Receipt, d hub.Dispatch) {
	for i := range d.Deliveries {
		b.notifications.add(at.Position, &d.Deliveries[i])
	}
}

type notificationRows struct {
	at                           values[time.Time]
	channel, customerID, message values[string]
	events                       values[[]string]
	status, failure, spoolID     values[string]
	attempt                      values[uint32]
	latency                      values[float64]
	spoolSeq                     values[uint64]
}

func (c *notificationRows) add(at hub.Position, d *hub.Delivery) {
	c.at = append(c.at, clampTime(d.At))
	c.channel = append(c.channel, d.Channel)
	c.customerID = append(c.customerID, d.CustomerID)
	c.message = append(c.message, d.MessageID)
	c.events = append(c.events, d.EventIDs)
	c.status = append(c.status, string(d.Status))
	c.attempt = append(c.attempt, uint32(d.Attempt))
	c.latency = append(c.latency, d.Latency.Seconds())
	c.failure = append(c.failure, failureOf(d))
	c.spoolID = append(c.spoolID, at.SpoolID.String())
	c.spoolSeq = append(c.spoolSeq, at.Seq)
}

// failureOf is a class and a status, and nothing that a server or a library said.
func failureOf(d *hub.Delivery) string {
	if d.Class == "" || d.HTTPStatus == 0 {
		return d.Class
	}
	return fmt.Sprintf("%s (%d)", d.Class, d.HTTPStatus)
}

func (c *notificationRows) rows() int { return len(c.spoolSeq) }

func (c *notificationRows) columns() []column {
	return []column{
		{"at", &c.at},
		{"channel", &c.channel},
		{"customer_id", &c.customerID},
		{"message_id", &c.message},
		{"event_ids", &c.events},
		{"status", &c.status},
		{"attempt", &c.attempt},
		{"latency_seconds", &c.latency},
		{"error", &c.failure},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}
}
