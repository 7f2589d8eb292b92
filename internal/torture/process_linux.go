package torture

import "syscall"

// attributes keeps Ctrl-C for the harness, and has a process die with it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
