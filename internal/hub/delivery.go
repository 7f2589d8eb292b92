package hub

import "time"

// DeliveryStatus is what became of a message on one channel.
type DeliveryStatus string

// The statuses. All but failed and retried are an end, until somebody retries what
// is dead; a digest is a message itself.
const (
	DeliverySent      DeliveryStatus = "sent"      // the receiver took it
	DeliveryFailed    DeliveryStatus = "failed"    // it will be tried again
	DeliveryDead      DeliveryStatus = "dead"      // it was refused, or could not be delivered for a day
	DeliveryCollapsed DeliveryStatus = "collapsed" // its trouble was over before anybody was told
	DeliveryDigested  DeliveryStatus = "digested"  // a digest counts it in its place
	DeliveryDropped   DeliveryStatus = "dropped"   // its channel left the fleet
	DeliveryRetried   DeliveryStatus = "retried"   // an operator put it back into the queue
)

// Delivery is an attempt to deliver a message to a channel, or what else became of
// it there, as the table notifications holds it.
type Delivery struct {
	MessageID  string   // the event's id, or the digest's
	EventIDs   []string // what it tells of; of a digest only where it is made (digested)
	Channel    string   // Channel.ID
	CustomerID string   // whose events; empty: the operators'
	Attempt    int      // counted from 1; 0: none was made
	Status     DeliveryStatus
	At         time.Time
	Latency    time.Duration // of the attempt
	Class      string        // in what way it failed, by notify.Class; empty: it did not
	HTTPStatus int           // or SMTP's; 0: none came
}

// Route says by which channels an event is told; by none, where they are none.
type Route struct {
	EventID  string
	Channels []string // by Channel.ID
}

// Dispatch is what the outbox did, written to the spool as one record.
type Dispatch struct {
	Routes     []Route
	Deliveries []Delivery // all At one instant
}
