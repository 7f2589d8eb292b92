package hub

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SpoolID names one volume of the spool: 128 random bits, drawn anew for every
// volume, so that a copied or restored spool never collides with its origin.
type SpoolID [16]byte

// String returns 32 lowercase hex characters.
func (id SpoolID) String() string { return hex.EncodeToString(id[:]) }

// ParseSpoolID reads the text form.
func ParseSpoolID(text string) (id SpoolID, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%q is no spool id: 32 hex characters are", text)
	}
	return SpoolID(raw), nil
}

// Position is the place of one record in the spool. Seq grows by one with each
// record, across volumes too; only the pair is unique for ever.
type Position struct {
	SpoolID SpoolID
	Seq     uint64
}

// ParsePosition reads "<spool id>/<sequence number>".
func ParsePosition(text string) (p Position, err error) {
	id, seq, ok := strings.Cut(text, "/")
	if p.SpoolID, err = ParseSpoolID(id); err == nil {
		p.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if !ok || err != nil {
		return Position{}, fmt.Errorf("%q is no position in the spool: a spool id, /, and a sequence number are", text)
	}
	return p, nil
}

// Text is the form that ParsePosition reads. (No String: it would be that of
// everything that has a position.)
func (p Position) Text() string { return fmt.Sprintf("%s/%d", p.SpoolID, p.Seq) }

// Receipt is what the spool returns for a record that is durable.
type Receipt struct {
	Position
	ReceivedAt time.Time // hub's clock, UTC, whole milliseconds; never goes back
}

// RecordKind says what the body of a spool record is.
type RecordKind uint8

// The kinds of records. The numbers are on disk: never change or reuse one.
const (
	KindHostReport RecordKind = 1 // body: a report as the agent sent it, decompressed
	KindDecision   RecordKind = 2 // body: wire's encoding of a Decision
	KindNotice     RecordKind = 3 // body: wire's encoding of a Notice
	KindBlind      RecordKind = 4 // body: wire's encoding of an interval of blind time

	KindControllerReport RecordKind = 5 // body: a report as the controller sent it, decompressed
	KindControllerEvent  RecordKind = 6 // body: an event as the controller sent it, decompressed

	KindDelivery RecordKind = 7 // body: wire's encoding of what became of messages
)

// Report is a host report, decoded. Pointers are nil where the report gave no
// value, or one out of its range (then Rejected says so).
type Report struct {
	HostID       string
	ReportedAt   time.Time // agent's clock; never used to judge liveness
	AgentVersion string

	Hostname, PVEVersion, Kernel, BootID string
	UptimeSeconds                        *uint64
	CPUCount                             *uint64
	CPUPercent                           *float64
	LoadAverage                          []float64 // 1, 5, 15 minutes, or empty
	MemoryTotalBytes, MemoryUsedBytes    *uint64
	DiskTotalBytes, DiskUsedBytes        *uint64
	CloudflaredStatus                    string // "" where absent
	MaintenanceUntil                     *time.Time
	MaintenanceReason                    string

	Guests         []Guest
	StorageTargets []StorageTarget
	Backups        []Backup
	RestoreTests   []RestoreTest
	PBSSnapshots   []PBSSnapshot
	AuditTail      []AuditEntry
	Rejected       []RejectedItem
}

// MemPercent returns used/total × 100, nil where total is 0 or absent or used is absent.
func (r *Report) MemPercent() *float64 { return percent(r.MemoryUsedBytes, r.MemoryTotalBytes) }

// DiskPercent returns used/total × 100, nil where total is 0 or absent or used is absent.
func (r *Report) DiskPercent() *float64 { return percent(r.DiskUsedBytes, r.DiskTotalBytes) }

func percent(used, total *uint64) *float64 {
	if used == nil || total == nil || *total == 0 {
		return nil
	}
	p := float64(*used) / float64(*total) * 100
	return &p
}

// GuestRunning returns the number of guests whose status is "running".
func (r *Report) GuestRunning() int {
	n := 0
	for i := range r.Guests {
		if r.Guests[i].Status == "running" {
			n++
		}
	}
	return n
}

// Guest is one virtual machine or container of a report.
type Guest struct {
	VMID              uint32
	Name              string
	Status            string
	ControllerVersion string
	Spec              []byte // JSON object as sent, or nil
}

// GuestID returns "<host_id>/<vmid>".
func GuestID(hostID string, vmid uint32) string {
	return hostID + "/" + strconv.FormatUint(uint64(vmid), 10)
}

// RejectedItem is a part of an accepted report that was left out of the rows.
type RejectedItem struct {
	Section  string // "guests", "backups", "host", …
	Position int    // index in the list; -1: the section itself
	Reason   string
	Item     []byte // as sent, cut to 1 KiB
}
