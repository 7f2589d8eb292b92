package bench

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	syncs    = 300
	syncSize = 4 << 10
	bareTime = 2 * time.Second
)

// Machine measures what a machine can do without a hub: the median time of
// writing and syncing 4 KiB in dir, and the reports a second of a bare handler,
// driven from the same process.
func Machine(dir string) (fsync time.Duration, bareRate float64, err error) {
	if fsync, err = syncTime(dir); err != nil {
		return 0, 0, err
	}
	s, err := bareSite(1)
	if err != nil {
		return 0, 0, err
	}
	l := Load{Address: s.address, HTTP: 1, Encoding: "identity", Hosts: 1000, Connections: DefaultConnections, Duration: bareTime}
	o, err := Drive(context.Background(), l, func() error { return nil })
	if err != nil {
		_ = s.stop()
		return 0, 0, err
	}
	return fsync, float64(o.Acknowledged) / o.Seconds, s.stop()
}

// syncTime is the median of what the spool does at each commit: a write at the
// end of a preallocated file, and fdatasync.
func syncTime(dir string) (median time.Duration, err error) {
	err = inFolder(dir, func(folder string) error {
		f, err := os.OpenFile(filepath.Join(folder, "sync"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, syncs*syncSize); err != nil {
			return os.NewSyscallError("fallocate", err)
		}
		block, took := make([]byte, syncSize), make([]time.Duration, syncs)
		for i := range took {
			begin := time.Now()
			if _, err := f.WriteAt(block, int64(i)*syncSize); err != nil {
				return err
			}
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				return os.NewSyscallError("fdatasync", err)
			}
			took[i] = time.Since(begin)
		}
		slices.Sort(took)
		median = took[len(took)/2]
		return nil
	})
	return median, err
}
