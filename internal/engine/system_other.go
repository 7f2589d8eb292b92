//go:build unix && !linux

package engine

import "syscall"

// attributes puts the engine into a process group of its own, so that Ctrl-C
// reaches the hub alone, which then stops the engine when it has drained.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// totalMemory returns 0: unknown here, so limits take their lower bounds.
func totalMemory() uint64 { return 0 }
