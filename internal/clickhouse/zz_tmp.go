package clickhouse

import "time"

type GuestSuccess struct {
	HostID     string
	VMID       uint32
	FirstSeen  time.Time
	Newest     [3]time.Time
	HostLastAt time.Time
	Present    bool
}

