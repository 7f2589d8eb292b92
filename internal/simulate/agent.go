package simulate

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30

	firstVMID = 101
)

// Agent is one made-up host: it remembers what it reported, so that the next
// report goes on from there. The same seed, host, guests and report times give
// the same bytes. It is not safe for concurrent use.
type Agent struct {
	random *rand.Rand
	hostID string

	version, hostname string
	cpus              int
	memory, disk      uint64 // bytes
	traits            traits
	bootID            string
	bootedAt          time.Time
	cpu, baseCPU      float64    // percent
	load              [3]float64 // 1, 5, 15 minutes
	memUsed, diskUsed float64    // shares of 1
	tunnel            string     // cloudflared's status
	guests            []guest
	wantGuests        int
	nextVMID          int
	audit             []string // newest last, JSON objects
	last              time.Time
	nightly           string // sections that change once a day
	nightlyDay        int64
}

// traits are what kind of host it is, for as long as it lives.
type traits struct{ storage, backups, restoreTests, snapshots, audits bool }

// guest is one virtual machine or container: all but its status is fixed.
type guest struct {
	vmid       int
	size       uint64 // bytes of a backup
	head, tail string // JSON before and after the status
	status     string
}

// NewAgent returns the agent of one host with about the given number of guests.
func NewAgent(seed uint64, hostID string, guests int) *Agent {
	name := fnv.New64a()
	_, _ = name.Write([]byte(hostID)) // a hash takes everything
	r := rand.New(rand.NewPCG(seed, name.Sum64()))
	a := &Agent{
		random: r, hostID: hostID,
		version:  pick(r, "0.4.0", "0.4.0", "0.4.0", "0.3.9"),
		hostname: "pve-" + hostID,
		cpus:     4 << r.IntN(4),
		memory:   uint64(16<<r.IntN(4)) * gib,
		disk:     uint64(512<<r.IntN(4)) * gib,
		baseCPU:  5 + 40*r.Float64(),
		memUsed:  0.3 + 0.4*r.Float64(),
		diskUsed: 0.1 + 0.5*r.Float64(),
		tunnel:   "active",
		traits: traits{
			storage: r.IntN(100) < 60, backups: r.IntN(100) < 50, restoreTests: r.IntN(100) < 20,
			snapshots: r.IntN(100) < 30, audits: r.IntN(100) < 30,
		},
		wantGuests: guests, nextVMID: firstVMID,
		nightlyDay: -1,
	}
	a.cpu = a.baseCPU
	for range guests {
		a.addGuest()
	}
	return a
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

var guestNames = []string{
	"controller", "nextcloud", "windows-erp", "gitlab", "mail", "files", "postgres", "web",
	"staging", "monitoring", "voip", "wiki", "paperless", "keycloak", "build", "backup-proxy",
}

func (a *Agent) addGuest() {
	r, vmid := a.random, a.nextVMID
	a.nextVMID++
	name := guestNames[(vmid-101)%len(guestNames)]
	if vmid-101 >= len(guestNames) {
		name += "-" + strconv.Itoa(vmid)
	}
	kind, version := "lxc", pick(r, "1.12.0", "1.12.0", "1.11.4")
	if strings.HasPrefix(name, "windows") {
		kind, version = "qemu", ""
	}
	cores, disk := 1<<r.IntN(4), 8<<r.IntN(6)
	a.guests = append(a.guests, guest{
		vmid: vmid,
		size: uint64(disk) * gib / 8,
		head: fmt.Sprintf(`{"vmid":%d,"name":%q,"status":"`, vmid, name),
		tail: fmt.Sprintf(`","controller_version":%q,"spec":{"type":%q,"cores":%d,"memory_mb":%d,"disk_gb":%d}}`,
			version, kind, cores, cores*1024, disk),
		status: "running",
	})
}

// AppendReport appends to dst the report that the agent sends at this time, and
// returns the extended buffer. Times must not go back.
func (a *Agent) AppendReport(dst []byte, at time.Time) []byte {
	at = at.UTC()
	a.live(at)
	b := append(dst, `{"host_id":"`...)
	b = append(b, a.hostID...)
	b = append(b, `","reported_at":"`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","agent_version":"`...)
	b = append(b, a.version...)
	b = a.appendHost(b, at)
	b = append(b, `,"guests":[`...)
	for i := range a.guests {
		if i > 0 {
			b = append(b, ',')
		}
		g := &a.guests[i]
		b = append(b, g.head...)
		b = append(b, g.status...)
		b = append(b, g.tail...)
	}
	b = append(b, `],"cloudflared":{"status":"`...)
	b = append(b, a.tunnel...)
	b = append(b, `"}`...)
	b = a.appendStorage(b)
	b = append(b, a.nightly...)
	b = a.appendAudit(b)
	return append(b, '}')
}

func (a *Agent) appendHost(b []byte, at time.Time) []byte {
	b = append(b, `","host":{"hostname":"`...)
	b = append(b, a.hostname...)
	b = append(b, `","pve_version":"8.4.1","kernel":"6.8.12-10-pve","boot_id":"`...)
	b = append(b, a.bootID...)
	b = append(b, `","uptime_seconds":`...)
	b = strconv.AppendInt(b, int64(at.Sub(a.bootedAt)/time.Second), 10)
	b = append(b, `,"cpu_count":`...)
	b = strconv.AppendInt(b, int64(a.cpus), 10)
	b = append(b, `,"cpu_percent":`...)
	b = strconv.AppendFloat(b, a.cpu, 'f', 2, 64)
	b = append(b, `,"load_average":[`...)
	for i, load := range a.load {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, load, 'f', 2, 64)
	}
	b = append(b, `],"memory_total_bytes":`...)
	b = strconv.AppendUint(b, a.memory, 10)
	b = append(b, `,"memory_used_bytes":`...)
	b = strconv.AppendUint(b, share(a.memory, a.memUsed), 10)
	b = append(b, `,"disk_total_bytes":`...)
	b = strconv.AppendUint(b, a.disk, 10)
	b = append(b, `,"disk_used_bytes":`...)
	b = strconv.AppendUint(b, share(a.disk, a.diskUsed), 10)
	return append(b, '}')
}

// share returns a part of a total in whole MiB, as such numbers are in life.
func share(total uint64, part float64) uint64 { return uint64(float64(total)*part) / mib * mib }

func (a *Agent) appendStorage(b []byte) []byte {
	if !a.traits.storage {
		return b
	}
	b = append(b, `,"storage_targets":[{"name":"local-zfs","type":"zfspool","status":"available","total_bytes":`...)
	b = strconv.AppendUint(b, a.disk, 10)
	b = append(b, `,"used_bytes":`...)
	b = strconv.AppendUint(b, share(a.disk, a.diskUsed), 10)
	b = append(b, `},{"name":"pbs-main","type":"pbs","status":"available","total_bytes":8796093022208,"used_bytes":`...)
	b = strconv.AppendUint(b, share(8<<40, a.diskUsed/2), 10)
	return append(b, `}]`...)
}

func (a *Agent) appendAudit(b []byte) []byte {
	for i, entry := range a.audit {
		if i == 0 {
			b = append(b, `,"audit_tail":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(b, entry...)
	}
	if len(a.audit) > 0 {
		b = append(b, ']')
	}
	return b
}

// live lets the host's life go on until at.
func (a *Agent) live(at time.Time) {
	r := a.random
	if a.last.IsZero() {
		a.last = at
		a.boot(at.Add(-time.Duration(1+r.IntN(60*24)) * time.Hour))
	}
	elapsed := at.Sub(a.last).Minutes()
	a.last = at

	// Processor and memory wander and are drawn back; the disk fills.
	a.cpu = within(a.cpu+(a.baseCPU-a.cpu)/8+6*(r.Float64()-0.5), 0.1, 100)
	a.memUsed = within(a.memUsed+(0.5-a.memUsed)/200+0.01*(r.Float64()-0.5), 0.05, 0.98)
	a.diskUsed = within(a.diskUsed+elapsed*1e-6+0.0001*(r.Float64()-0.5), 0.02, 0.97)
	busy := a.cpu / 100 * float64(a.cpus)
	for i, minutes := range [...]float64{1, 5, 15} {
		a.load[i] += (busy - a.load[i]) * min(1, elapsed/minutes+0.05)
	}

	switch chance := r.IntN(1000); {
	case chance == 0:
		a.boot(at)
		a.note(at, "host.reboot", "kernel update")
	case chance < 5:
		a.tunnel = "degraded"
	case chance < 60:
		a.tunnel = "active"
	case chance < 80:
		a.changeGuest(at)
	case chance < 90:
		a.comeOrGo(at)
	}
	if day := at.Unix() / 86400; day != a.nightlyDay {
		a.nightlyDay = day
		a.nightly = a.lastNight(time.Unix(day*86400, 0).UTC())
	}
}

func within(x, low, high float64) float64 { return min(max(x, low), high) }

func (a *Agent) boot(at time.Time) {
	a.bootedAt = at
	var id [16]byte
	for i := range id {
		id[i] = byte(a.random.Uint32())
	}
	text := hex.EncodeToString(id[:])
	a.bootID = text[:8] + "-" + text[8:12] + "-4" + text[13:16] + "-a" + text[17:20] + "-" + text[20:]
}

// changeGuest stops, pauses or starts one guest.
func (a *Agent) changeGuest(at time.Time) {
	if len(a.guests) == 0 {
		return
	}
	g := &a.guests[a.random.IntN(len(a.guests))]
	action := "guest.start"
	switch {
	case g.status != "running":
		g.status = "running"
	case a.random.IntN(4) == 0:
		g.status, action = "paused", "guest.pause"
	default:
		g.status, action = "stopped", "guest.stop"
	}
	a.note(at, action, "vmid="+strconv.Itoa(g.vmid))
}

// comeOrGo makes a new guest or removes one, so that their number stays near
// the wanted one.
func (a *Agent) comeOrGo(at time.Time) {
	switch n := len(a.guests); {
	case a.wantGuests == 0:
	case n < a.wantGuests || (n == a.wantGuests && a.random.IntN(2) == 0):
		a.addGuest()
		a.note(at, "guest.create", "vmid="+strconv.Itoa(a.guests[n].vmid))
	default:
		i := a.random.IntN(n)
		a.note(at, "guest.destroy", "vmid="+strconv.Itoa(a.guests[i].vmid))
		a.guests = append(a.guests[:i], a.guests[i+1:]...)
	}
}

// note adds to the audit tail, which keeps its last three entries.
func (a *Agent) note(at time.Time, action, detail string) {
	if !a.traits.audits {
		return
	}
	a.audit = append(a.audit, fmt.Sprintf(`{"at":%q,"actor":"root@pam","action":%q,"detail":%q}`,
		at.Format(time.RFC3339), action, detail))
	a.audit = a.audit[max(0, len(a.audit)-3):]
}

// lastNight returns the sections about the backups of the night before, which
// every report of the day repeats: up to three guests, one after the other.
func (a *Agent) lastNight(day time.Time) string {
	var backups, tests, snapshots []string
	start := day.Add(-23 * time.Hour) // 01:00 of the day before
	for _, g := range a.guests[:min(3, len(a.guests))] {
		seconds := 60 + a.random.IntN(900)
		end := start.Add(time.Duration(seconds) * time.Second)
		result := `"status":"ok","size_bytes":` + strconv.FormatUint(g.size, 10)
		if a.random.IntN(50) == 0 {
			result = `"status":"failed","size_bytes":0,"error":"lock timeout"`
		}
		backups = append(backups, fmt.Sprintf(`{"vmid":%d,"target":"pbs-main","started_at":%q,"finished_at":%q,%s}`,
			g.vmid, start.Format(time.RFC3339), end.Format(time.RFC3339), result))
		snapshots = append(snapshots, fmt.Sprintf(`{"datastore":"main","vmid":%d,"taken_at":%q,"size_bytes":%d,"verified":%t}`,
			g.vmid, start.Format(time.RFC3339), g.size, a.random.IntN(4) > 0))
		if len(tests) == 0 {
			tests = append(tests, fmt.Sprintf(`{"vmid":%d,"backup_time":%q,"tested_at":%q,"status":"ok","duration_seconds":%d}`,
				g.vmid, start.Format(time.RFC3339), start.Add(3*time.Hour).Format(time.RFC3339), seconds))
		}
		start = end
	}
	var b strings.Builder
	for _, section := range []struct {
		has   bool
		name  string
		items []string
	}{
		{a.traits.backups, "backups", backups},
		{a.traits.restoreTests, "restore_tests", tests},
		{a.traits.snapshots, "pbs_snapshots", snapshots},
	} {
		if section.has && len(section.items) > 0 {
			b.WriteString(`,"` + section.name + `":[` + strings.Join(section.items, ",") + "]")
		}
	}
	return b.String()
}
