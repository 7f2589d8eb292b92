package wire

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

const (
	maxStatus    = 64 // characters, of a controller and of its newest backup
	maxEventType = 64 // characters
)

// DecodeControllerReport reads the body of a controller's report.
//
// A mistake in the identity part (customer_id, guest_id, reported_at,
// controller_version) or in the syntax of the body is a *hub.Error with code
// Invalid. A mistake elsewhere leaves out that part and notes it in Rejected, as
// [DecodeReport] does. The same body always gives the same report, which lies in
// body: that must not change as long as the report is used.
func DecodeControllerReport(body []byte) (*hub.ControllerReport, error) {
	var d controllerDecoder
	if err := d.read(textOf(body)); err != nil {
		return nil, err
	}
	d.report.Rejected = d.rejects()
	return &d.report, nil
}

// CheckControllerReport returns whom a body that [DecodeControllerReport] accepts is
// from, and its error for one that it does not, as cheaply as [CheckReport]. guestID
// is empty where the body names none.
func CheckControllerReport(body []byte) (customerID, guestID string, err error) {
	d := controllerDecoder{reader: reader{identityOnly: true}}
	err = d.read(textOf(body))
	return strings.Clone(d.report.CustomerID), strings.Clone(d.report.GuestID), err
}

// controllerDecoder reads one report of a controller.
type controllerDecoder struct {
	reader
	report hub.ControllerReport
	apps   set[string]

	hasCustomer, hasTime, hasVersion bool
}

func (d *controllerDecoder) read(text string) error {
	if err := d.reader.read(text, d.readMember); err != nil {
		return err
	}
	if !d.hasCustomer || !d.hasTime || !d.hasVersion {
		return invalid("identity", "customer_id, reported_at and controller_version are required")
	}
	return nil
}

// readMember reads a member of the top level.
func (d *controllerDecoder) readMember(name string) (err error) {
	r := &d.report
	switch name {
	case "customer_id":
		d.hasCustomer, err = true, d.customerID()
	case "guest_id":
		r.GuestID, err = d.guestID()
	case "reported_at":
		d.hasTime = true
		r.ReportedAt, err = d.reportedAt()
	case "controller_version":
		d.hasVersion = true
		r.ControllerVersion, err = d.version(name)
	case "status":
		d.scalar(name, func(raw string) error { return setShort(&r.Status, name, raw) })
	case "uptime_seconds":
		d.scalar(name, func(raw string) error { return setOptional(&r.UptimeSeconds, name, raw, setUint[uint64]) })
	case "cpu_percent":
		d.scalar(name, func(raw string) error { return setOptional(&r.CPUPercent, name, raw, setPercent) })
	case "memory_percent":
		d.scalar(name, func(raw string) error { return setOptional(&r.MemoryPercent, name, raw, setPercent) })
	case "disk_percent":
		d.scalar(name, func(raw string) error { return setOptional(&r.DiskPercent, name, raw, setPercent) })
	case "apps":
		d.list(name, d.app)
	case "backup":
		d.section(name, d.backup)
	default:
		if foldsTo(name, "customer_id", "guest_id", "reported_at") {
			err = invalid("folded_name", "a name differs from customer_id, guest_id or reported_at only in case or by folding")
		}
	}
	return err
}

func (d *controllerDecoder) customerID() error {
	id, ok := d.stringValue()
	if !ok || !hub.ValidCustomerName(id) {
		return invalid("identity", "customer_id is not the name of a customer")
	}
	d.report.CustomerID = id
	return nil
}

// guestID consumes an optional guest id; null is an absent one.
func (r *reader) guestID() (string, error) {
	if r.kind() == 'n' {
		r.value()
		return "", nil
	}
	id, ok := r.stringValue()
	if !ok || !hub.ValidGuestID(id) {
		return "", invalid("identity", "guest_id is the id of a host, /, and the number of a guest")
	}
	return id, nil
}

// scalar reads an optional member whose mistakes never cost the report.
func (r *reader) scalar(name string, set func(raw string) error) {
	if r.identityOnly {
		return
	}
	raw := r.value()
	if err := set(raw); err != nil {
		r.reject(name, -1, err.Error(), raw)
	}
}

var (
	errAppName  = errors.New("name: not a string, or empty")
	errAppTwice = errors.New("name: an earlier app of this report has it")
)

// app consumes one app and keeps it, or says why not.
func (d *controllerDecoder) app() error {
	var a hub.App
	err := d.readObject(func(name, raw string) error {
		switch name {
		case "name":
			return setText(&a.Name, name, raw)
		case "status":
			return setText(&a.Status, name, raw)
		case "version":
			return setText(&a.Version, name, raw)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case a.Name == "":
		return errAppName
	case !d.apps.add(a.Name):
		return errAppTwice
	}
	d.report.Apps = append(d.report.Apps, a)
	return nil
}

func (d *controllerDecoder) backup(object cursor) error {
	var (
		at     time.Time
		status string
	)
	for object.enter(); object.more(); {
		name, raw := object.name(), object.value()
		var err error
		switch name {
		case "last_success_at":
			err = setTime(&at, name, raw)
		case "last_status":
			err = setShort(&status, name, raw)
		}
		if err != nil {
			return err
		}
	}
	if d.report.LastBackupStatus = status; !at.IsZero() {
		d.report.LastBackupAt = &at
	}
	return nil
}

// setShort is setText for a word of few characters.
func setShort(into *string, name, raw string) error {
	var said string
	if err := setText(&said, name, raw); err != nil || utf8.RuneCountInString(said) > maxStatus {
		return wrong(name)
	}
	*into = said
	return nil
}

func setPercent(into *float64, name, raw string) error {
	var said float64
	if err := setFloat(&said, name, raw); err != nil || said < 0 || said > 100 {
		return wrong(name)
	}
	*into = said
	return nil
}

// setOptional is set for a field that is nil where it is absent.
func setOptional[T any](into **T, name, raw string, set func(into *T, name, raw string) error) error {
	if raw == "null" {
		return nil
	}
	value := new(T)
	if err := set(value, name, raw); err != nil {
		return err
	}
	*into = value
	return nil
}

// DecodeControllerEvent reads the body of a controller's event. It is strict about
// every field that it knows: mistakes are *hub.Error with code Invalid. Whether the
// type is one that controllers may send is not for it to say. The result lies in
// body, which must not change as long as it is used.
func DecodeControllerEvent(body []byte) (*hub.ControllerEvent, error) {
	var d eventDecoder
	if err := d.read(textOf(body), d.readMember); err != nil {
		return nil, err
	}
	if d.event.Type == "" || d.event.Severity == "" || d.event.Message == "" {
		return nil, invalid("event", "type, severity and message are required")
	}
	return &d.event, nil
}

type eventDecoder struct {
	reader
	event hub.ControllerEvent
}

func (d *eventDecoder) readMember(name string) (err error) {
	e := &d.event
	switch name {
	case "type":
		said, ok := d.stringValue()
		if e.Type = hub.EventType(said); !ok || said == "" || utf8.RuneCountInString(said) > maxEventType {
			err = invalid("event", "type is a string of 1 to 64 characters")
		}
	case "severity":
		switch e.Severity, _ = d.stringValue(); e.Severity {
		case "info", "warning", "critical":
		default:
			err = invalid("event", "severity is info, warning or critical")
		}
	case "message":
		if e.Message, _ = d.stringValue(); e.Message == "" {
			err = invalid("event", "message is a string that is not empty")
		}
	case "guest_id":
		e.GuestID, err = d.guestID()
	case "at":
		if raw := d.value(); setTime(&e.At, name, raw) != nil {
			err = invalid("event", "at is not an RFC 3339 time")
		}
	default:
		if foldsTo(name, "type", "severity", "message", "guest_id", "at") {
			err = invalid("folded_name", "a name differs from one of an event's only in case or by folding")
		}
	}
	return err
}

// ControllerReply returns the reply to an accepted report of a controller, on one
// line ending in a newline.
func ControllerReply(blocked bool) []byte {
	return line(struct {
		Status  string `json:"status"`
		Blocked bool   `json:"blocked"`
	}{"ok", blocked})
}

// EventReply returns the reply to an accepted event, as [ControllerReply] does.
func EventReply() []byte {
	return line(struct {
		Status string `json:"status"`
	}{"ok"})
}
