package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts the engine into a process group of its own, so that Ctrl-C
// reaches the hub alone, which then stops the engine when it has drained. The
// parent-death signal is the second guard beside the pipe; it follows the
// thread that forked, which supervise therefore keeps.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// totalMemory returns the machine's memory in bytes.
func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}
