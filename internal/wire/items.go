package wire

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// itemChecks says, for each list of a report that holds no guests, why an item
// does not count, or nil. Unknown fields are welcome; what identifies an item
// must be there.
var itemChecks = map[string]func(raw string) error{
	"storage_targets": check[storageTarget],
	"backups":         check[backup],
	"restore_tests":   check[restoreTest],
	"pbs_snapshots":   check[pbsSnapshot],
	"audit_tail":      check[auditEntry],
}

// item is one decoded list item.
type item interface {
	// missing returns the name of the first field that identifies the item and
	// is not there, or "".
	missing() string
}

type storageTarget struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Status     string `json:"status"`
	TotalBytes uint64 `json:"total_bytes"`
	UsedBytes  uint64 `json:"used_bytes"`
}

func (t storageTarget) missing() string { return firstOf(field{"name", t.Name == ""}) }

type backup struct {
	VMID       uint32    `json:"vmid"`
	Target     string    `json:"target"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"` // null while it runs
	Status     string    `json:"status"`
	SizeBytes  uint64    `json:"size_bytes"`
	Error      string    `json:"error"`
}

func (b backup) missing() string {
	return firstOf(field{"vmid", b.VMID == 0}, field{"started_at", b.StartedAt.IsZero()})
}

type restoreTest struct {
	VMID            uint32    `json:"vmid"`
	BackupTime      time.Time `json:"backup_time"`
	TestedAt        time.Time `json:"tested_at"`
	Status          string    `json:"status"`
	DurationSeconds float64   `json:"duration_seconds"`
}

func (t restoreTest) missing() string {
	return firstOf(field{"vmid", t.VMID == 0}, field{"tested_at", t.TestedAt.IsZero()})
}

type pbsSnapshot struct {
	Datastore string    `json:"datastore"`
	VMID      uint32    `json:"vmid"`
	TakenAt   time.Time `json:"taken_at"`
	SizeBytes uint64    `json:"size_bytes"`
	Verified  bool      `json:"verified"`
}

func (s pbsSnapshot) missing() string {
	return firstOf(field{"vmid", s.VMID == 0}, field{"taken_at", s.TakenAt.IsZero()})
}

type auditEntry struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"`
	Detail string    `json:"detail"`
}

func (e auditEntry) missing() string { return firstOf(field{"at", e.At.IsZero()}) }

type field struct {
	name   string
	absent bool
}

func firstOf(fields ...field) string {
	for _, f := range fields {
		if f.absent {
			return f.name
		}
	}
	return ""
}

func check[T item](raw string) error {
	if raw[0] != '{' {
		return errNotObject
	}
	var it T
	if err := json.Unmarshal([]byte(raw), &it); err != nil {
		return itemError(err)
	}
	if name := it.missing(); name != "" {
		return errors.New(name + ": missing")
	}
	return nil
}

// itemError says which field is wrong. Only fields that we know are decoded,
// so the name in the error is ours and not the sender's.
func itemError(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errNameTwice
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return errors.New(semantic.JSONPointer.LastToken() + ": wrong type or out of range")
	}
	return errNotObject
}
