//go:build !linux

package torture

import "syscall"

// attributes keeps Ctrl-C for the harness.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
