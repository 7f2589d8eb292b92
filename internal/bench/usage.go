package bench

import (
	"runtime"
	"syscall"
	"time"
)

// usage is what this process has used up to now.
type usage struct {
	processor time.Duration // user and system
	allocs    uint64
}

func used() usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails on a bad address only
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Duration(r.Utime.Nano() + r.Stime.Nano()), m.Mallocs}
}

func (u usage) since(before usage) usage {
	return usage{u.processor - before.processor, u.allocs - before.allocs}
}

func (u usage) plus(other usage) usage {
	return usage{u.processor + other.processor, u.allocs + other.allocs}
}
