package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

const (
	maxCloudflared      = 32 // characters
	maxMaintenanceAhead = 24 * time.Hour
)

// DecodeReport reads the body of a host report by every rule of the contract.
//
// A mistake in the identity part (host_id, reported_at, agent_version, host) or
// in the syntax of the body is a *hub.Error with code Invalid. A mistake
// elsewhere leaves out the item and notes it in Rejected; after 1,000 of them
// the last note says how many more there were.
//
// receivedAt is the hub's receive time of the record. It decides only whether
// an announced maintenance lies too far ahead, never whether the report is
// accepted: the same body and time always give the same report. The result
// lies in body, which must not change as long as the report is used.
func DecodeReport(body []byte, receivedAt time.Time) (*hub.Report, error) {
	d := decoder{receivedAt: receivedAt}
	if err := d.read(textOf(body)); err != nil {
		return nil, err
	}
	d.report.Rejected = d.rejects()
	return &d.report, nil
}

// CheckReport returns the host_id of a body that [DecodeReport] accepts, and its
// error for one that it does not, at a quarter of the price: nothing is read that
// cannot refuse a report, and the body is not copied.
func CheckReport(body []byte) (hostID string, err error) {
	d := decoder{reader: reader{identityOnly: true}}
	err = d.read(textOf(body))
	return strings.Clone(d.report.HostID), err
}

func (d *decoder) read(text string) error {
	if err := d.reader.read(text, d.readMember); err != nil {
		return err
	}
	if !d.hasID || !d.hasTime || !d.hasVersion || !d.hasHost {
		return invalid("identity", "host_id, reported_at, agent_version and host are required")
	}
	return nil
}

// decoder reads one report of a host.
type decoder struct {
	reader
	report     hub.Report
	receivedAt time.Time
	vmids      set[uint32]
	targets    set[string]

	hasID, hasTime, hasVersion, hasHost bool
}

// readMember reads a member of the top level.
func (d *decoder) readMember(name string) (err error) {
	switch name {
	case "host_id":
		d.hasID, err = true, d.hostID()
	case "reported_at":
		d.hasTime = true
		d.report.ReportedAt, err = d.reportedAt()
	case "agent_version":
		d.hasVersion = true
		d.report.AgentVersion, err = d.version(name)
	case "host":
		d.hasHost, err = true, d.host()
	case "guests":
		d.list(name, d.guest)
	case "cloudflared":
		d.section(name, d.cloudflared)
	case "maintenance":
		d.section(name, d.maintenance)
	case "storage_targets":
		d.list(name, d.storageTarget)
	case "backups":
		d.list(name, d.backup)
	case "restore_tests":
		d.list(name, d.restoreTest)
	case "pbs_snapshots":
		d.list(name, d.pbsSnapshot)
	case "audit_tail":
		d.list(name, d.auditEntry)
	default:
		if foldsTo(name, "host_id", "reported_at", "host") {
			err = invalid("folded_name", "a name differs from host_id, reported_at or host only in case or by folding")
		}
	}
	return err
}

func (d *decoder) hostID() error {
	id, ok := d.stringValue()
	if !ok || !hub.ValidHostID(id) {
		return invalid("identity", "host_id is 1 to 128 characters of a-z, 0-9, dot and hyphen, the first a letter or digit")
	}
	d.report.HostID = id
	return nil
}

// parseTime reads RFC 3339. time.Time.UnmarshalText also takes an hour of one
// digit, a decimal comma and offsets of a day and more; they are no such times.
func parseTime(text string) (at time.Time, err error) {
	if err = at.UnmarshalText([]byte(text)); err != nil {
		return time.Time{}, err
	}
	const hour, fraction, offset = len("2006-01-02T"), len("2006-01-02T15:04:05"), len("07:00")
	zulu := strings.HasSuffix(text, "Z")
	if text[hour+1] == ':' || text[fraction] == ',' ||
		!zulu && (text[len(text)-offset:] >= "24" || text[len(text)-2:] >= "60") {
		return time.Time{}, errNotRFC3339
	}
	return at.UTC(), nil
}

var errNotRFC3339 = errors.New("not an RFC 3339 time")

// host reads the object "host". null is an absent value, as anywhere.
func (d *decoder) host() error {
	if d.kind() != '{' {
		return invalid("host", "host is not an object")
	}
	r := &d.report
	var names set[string]
	for d.enter(); d.more(); {
		name := d.name()
		if !names.add(name) {
			return invalid("duplicate_name", "a name stands twice in host")
		}
		var err error
		switch name {
		case "hostname":
			r.Hostname, err = d.hostText()
		case "pve_version":
			r.PVEVersion, err = d.hostText()
		case "kernel":
			r.Kernel, err = d.hostText()
		case "boot_id":
			r.BootID, err = d.hostText()
		case "uptime_seconds":
			r.UptimeSeconds, err = d.hostUint(name)
		case "cpu_count":
			r.CPUCount, err = d.hostUint(name)
		case "memory_total_bytes":
			r.MemoryTotalBytes, err = d.hostUint(name)
		case "memory_used_bytes":
			r.MemoryUsedBytes, err = d.hostUint(name)
		case "disk_total_bytes":
			r.DiskTotalBytes, err = d.hostUint(name)
		case "disk_used_bytes":
			r.DiskUsedBytes, err = d.hostUint(name)
		case "cpu_percent":
			r.CPUPercent, err = d.cpuPercent()
		case "load_average":
			r.LoadAverage, err = d.loadAverage()
		default:
			d.value()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errHostMember = invalid("host", "a member of host has the wrong type")

func (d *decoder) hostText() (string, error) {
	raw := d.value()
	switch raw[0] {
	case '"':
		return unquote(raw), nil
	case 'n':
		return "", nil
	}
	return "", errHostMember
}

// hostNumber consumes the value ahead; "" stands for null, and for what need not
// be looked at: a number out of range refuses no report.
func (d *decoder) hostNumber() (string, error) {
	raw := d.value()
	switch {
	case raw == "null":
		return "", nil
	case !isNumber(raw):
		return "", errHostMember
	case d.identityOnly:
		return "", nil
	}
	return raw, nil
}

func (d *decoder) hostUint(name string) (*uint64, error) {
	raw, err := d.hostNumber()
	if err != nil || raw == "" {
		return nil, err
	}
	n, err := strconv.ParseUint(raw, 10, 64)
	if err != nil {
		d.reject("host", -1, name+": not an unsigned integer of 64 bits", raw)
		return nil, nil
	}
	return &n, nil
}

func (d *decoder) cpuPercent() (*float64, error) {
	raw, err := d.hostNumber()
	if err != nil || raw == "" {
		return nil, err
	}
	n, err := strconv.ParseFloat(raw, 64)
	if err != nil || n < 0 || n > 100 {
		d.reject("host", -1, "cpu_percent: not between 0 and 100", raw)
		return nil, nil
	}
	return &n, nil
}

func (d *decoder) loadAverage() ([]float64, error) {
	switch d.kind() {
	case 'n':
		d.value()
		return nil, nil
	case '[':
	default:
		return nil, errHostMember
	}
	var (
		start   = d.pos
		loads   []float64
		inRange = true
	)
	for d.enter(); d.more(); {
		raw := d.value()
		if !isNumber(raw) {
			return nil, errHostMember
		}
		if d.identityOnly {
			continue
		}
		if loads == nil {
			loads = make([]float64, 0, 3)
		}
		n, err := strconv.ParseFloat(raw, 64)
		if inRange = inRange && err == nil && n >= 0 && len(loads) < 3; inRange {
			loads = append(loads, n)
		}
	}
	if inRange && len(loads) == 3 {
		return loads, nil
	}
	if raw := d.text[start:d.pos]; len(loads) > 0 || !inRange {
		d.reject("host", -1, "load_average: not three numbers of at least 0", raw)
	}
	return nil, nil
}

// Why an item does not count. The texts are stored: they never quote the body.
var (
	errNotObject    = errors.New("not an object")
	errNameTwice    = errors.New("a name stands twice")
	errVMID         = errors.New("vmid: not an integer from 1 to 4294967295")
	errVMIDTwice    = errors.New("vmid: an earlier guest of this report has it")
	errNameTaken    = errors.New("name: an earlier storage target of this report has it")
	errSpec         = errors.New("spec: not an object")
	errCloudflared  = errors.New("status: not a string of at most 32 characters")
	errUntil        = errors.New("until: not an RFC 3339 time")
	errUntilTooLate = errors.New("until: more than 24 h after receipt")
	errReason       = errors.New("reason: not a string")
)

// guest consumes one guest and keeps it, or says why not.
func (d *decoder) guest() error {
	var g hub.Guest
	err := d.readObject(func(name, raw string) error { return setGuest(&g, name, raw) })
	switch {
	case err != nil:
		return err
	case g.VMID == 0:
		return errVMID
	case !d.vmids.add(g.VMID):
		return errVMIDTwice
	}
	if d.report.Guests == nil {
		d.report.Guests = make([]hub.Guest, 0, 16)
	}
	d.report.Guests = append(d.report.Guests, g)
	return nil
}

func setGuest(g *hub.Guest, name, raw string) (err error) {
	switch name {
	case "vmid":
		vmid, err := strconv.ParseUint(raw, 10, 32)
		if err != nil {
			return errVMID
		}
		g.VMID = uint32(vmid)
	case "name":
		g.Name, err = guestText(name, raw)
	case "status":
		g.Status, err = guestText(name, raw)
	case "controller_version":
		g.ControllerVersion, err = guestText(name, raw)
	case "spec":
		switch raw[0] {
		case '{':
			g.Spec = bytesOf(raw)
		case 'n':
		default:
			return errSpec
		}
	}
	return err
}

func guestText(name, raw string) (string, error) {
	switch raw[0] {
	case '"':
		return unquote(raw), nil
	case 'n':
		return "", nil
	}
	return "", fmt.Errorf("%s: not a string", name)
}

func (d *decoder) cloudflared(object cursor) error {
	for object.enter(); object.more(); {
		name, raw := object.name(), object.value()
		if name != "status" || raw == "null" {
			continue
		}
		if raw[0] != '"' {
			return errCloudflared
		}
		status := unquote(raw)
		if utf8.RuneCountInString(status) > maxCloudflared {
			return errCloudflared
		}
		d.report.CloudflaredStatus = status
	}
	return nil
}

func (d *decoder) maintenance(object cursor) error {
	var (
		until  time.Time
		reason string
		err    = errUntil // unless it is there
	)
	for object.enter(); object.more(); {
		name, raw := object.name(), object.value()
		switch {
		case name == "until" && raw[0] == '"':
			if until, err = parseTime(unquote(raw)); err != nil {
				return errUntil
			}
		case name == "until":
			return errUntil
		case name == "reason" && raw[0] == '"':
			reason = unquote(raw)
		case name == "reason" && raw != "null":
			return errReason
		}
	}
	if err == nil && until.After(d.receivedAt.Add(maxMaintenanceAhead)) {
		err = errUntilTooLate
	}
	if err == nil {
		d.report.MaintenanceUntil, d.report.MaintenanceReason = &until, reason
	}
	return err
}
