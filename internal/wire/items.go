package wire

import (
	"errors"
	"strconv"
	"time"

	"felhom.eu/hub/internal/hub"
)

// item is one element of a list of a report. Fields that it does not know are
// welcome; what identifies it must be there.
type item interface {
	// set takes a member by its name and its value as sent; null is an absent one.
	set(name, raw string) error
	// missing returns the name of the first field that identifies the item and
	// is not there, or "".
	missing() string
}

func (d *decoder) backup() error {
	return keep(d, &d.report.Backups, func(b *hub.Backup) item { return (*backup)(b) })
}

func (d *decoder) restoreTest() error {
	return keep(d, &d.report.RestoreTests, func(t *hub.RestoreTest) item { return (*restoreTest)(t) })
}

func (d *decoder) pbsSnapshot() error {
	return keep(d, &d.report.PBSSnapshots, func(s *hub.PBSSnapshot) item { return (*pbsSnapshot)(s) })
}

func (d *decoder) auditEntry() error {
	return keep(d, &d.report.AuditTail, func(e *hub.AuditEntry) item { return (*auditEntry)(e) })
}

// keep reads the element ahead where it will stand in its list, and takes it out
// again where it does not count.
func keep[T any](d *decoder, list *[]T, as func(*T) item) error {
	var empty T
	*list = append(*list, empty)
	err := d.readItem(as(&(*list)[len(*list)-1]))
	if err != nil {
		*list = (*list)[:len(*list)-1]
	}
	return err
}

// storageTarget reads a target; like a guest's vmid, its name identifies it within
// the report.
func (d *decoder) storageTarget() error {
	err := keep(d, &d.report.StorageTargets, func(t *hub.StorageTarget) item { return (*storageTarget)(t) })
	if n := len(d.report.StorageTargets) - 1; err == nil && !d.targets.add(d.report.StorageTargets[n].Name) {
		d.report.StorageTargets = d.report.StorageTargets[:n]
		return errNameTaken
	}
	return err
}

type storageTarget hub.StorageTarget

func (t *storageTarget) set(name, raw string) error {
	switch name {
	case "name":
		return setText(&t.Name, name, raw)
	case "type":
		return setText(&t.Type, name, raw)
	case "status":
		return setText(&t.Status, name, raw)
	case "total_bytes":
		return setUint(&t.TotalBytes, name, raw)
	case "used_bytes":
		return setUint(&t.UsedBytes, name, raw)
	}
	return nil
}

func (t *storageTarget) missing() string { return firstOf(field{"name", t.Name == ""}) }

type backup hub.Backup

func (b *backup) set(name, raw string) error {
	switch name {
	case "vmid":
		return setUint(&b.VMID, name, raw)
	case "target":
		return setText(&b.Target, name, raw)
	case "started_at":
		return setTime(&b.StartedAt, name, raw)
	case "finished_at":
		return setTime(&b.FinishedAt, name, raw)
	case "status":
		return setText(&b.Status, name, raw)
	case "size_bytes":
		return setUint(&b.SizeBytes, name, raw)
	case "error":
		return setText(&b.Error, name, raw)
	}
	return nil
}

func (b *backup) missing() string {
	return firstOf(field{"vmid", b.VMID == 0}, field{"started_at", b.StartedAt.IsZero()})
}

type restoreTest hub.RestoreTest

func (t *restoreTest) set(name, raw string) error {
	switch name {
	case "vmid":
		return setUint(&t.VMID, name, raw)
	case "backup_time":
		return setTime(&t.BackupTime, name, raw)
	case "tested_at":
		return setTime(&t.TestedAt, name, raw)
	case "status":
		return setText(&t.Status, name, raw)
	case "duration_seconds":
		return setFloat(&t.DurationSeconds, name, raw)
	}
	return nil
}

func (t *restoreTest) missing() string {
	return firstOf(field{"vmid", t.VMID == 0}, field{"tested_at", t.TestedAt.IsZero()})
}

type pbsSnapshot hub.PBSSnapshot

func (s *pbsSnapshot) set(name, raw string) error {
	switch name {
	case "datastore":
		return setText(&s.Datastore, name, raw)
	case "vmid":
		return setUint(&s.VMID, name, raw)
	case "taken_at":
		return setTime(&s.TakenAt, name, raw)
	case "size_bytes":
		return setUint(&s.SizeBytes, name, raw)
	case "verified":
		return setBool(&s.Verified, name, raw)
	}
	return nil
}

func (s *pbsSnapshot) missing() string {
	return firstOf(field{"vmid", s.VMID == 0}, field{"taken_at", s.TakenAt.IsZero()})
}

type auditEntry hub.AuditEntry

func (e *auditEntry) set(name, raw string) error {
	switch name {
	case "at":
		return setTime(&e.At, name, raw)
	case "actor":
		return setText(&e.Actor, name, raw)
	case "action":
		return setText(&e.Action, name, raw)
	case "detail":
		return setText(&e.Detail, name, raw)
	}
	return nil
}

func (e *auditEntry) missing() string { return firstOf(field{"at", e.At.IsZero()}) }

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

// readItem consumes the element ahead and says why it does not count, or nil.
func (c *cursor) readItem(it item) error {
	if err := c.readObject(it.set); err != nil {
		return err
	}
	if name := it.missing(); name != "" {
		return errors.New(name + ": missing")
	}
	return nil
}

// readObject consumes the value ahead, an object in which and within which no
// name may stand twice, and returns the first mistake.
func (c *cursor) readObject(member func(name, raw string) error) error {
	if c.kind() != '{' {
		c.value()
		return errNotObject
	}
	var (
		names set[string]
		err   error
	)
	for c.enter(); c.more(); {
		name := c.name()
		fresh := names.add(name)
		raw, unique := c.uniqueValue()
		if err == nil && (!fresh || !unique) {
			err = errNameTwice
		}
		if err == nil {
			err = member(name, raw)
		}
	}
	return err
}

// The functions below read a value as sent into a field of an item; null leaves
// it as it is.

func setText(into *string, name, raw string) error {
	switch raw[0] {
	case '"':
		*into = unquote(raw)
	case 'n':
	default:
		return wrong(name)
	}
	return nil
}

func setUint[T uint32 | uint64](into *T, name, raw string) error {
	if raw == "null" {
		return nil
	}
	n, err := strconv.ParseUint(raw, 10, 64)
	if err != nil || uint64(T(n)) != n {
		return wrong(name)
	}
	*into = T(n)
	return nil
}

func setFloat(into *float64, name, raw string) error {
	if raw == "null" {
		return nil
	}
	n, err := strconv.ParseFloat(raw, 64)
	if !isNumber(raw) || err != nil {
		return wrong(name)
	}
	*into = n
	return nil
}

func setBool(into *bool, name, raw string) error {
	switch raw[0] {
	case 't', 'f':
		*into = raw[0] == 't'
	case 'n':
	default:
		return wrong(name)
	}
	return nil
}

func setTime(into *time.Time, name, raw string) error {
	switch raw[0] {
	case '"':
		at, err := parseTime(unquote(raw))
		if err != nil {
			return wrong(name)
		}
		*into = at
	case 'n':
	default:
		return wrong(name)
	}
	return nil
}

// wrong names a field that we know: the name is ours and not the sender's.
func wrong(field string) error { return errors.New(field + ": wrong type or out of range") }
