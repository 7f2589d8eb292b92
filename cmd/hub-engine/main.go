// Command hub-engine is the launcher of the embedded ClickHouse: it opens the
// engine library in a process of its own and runs it until it is told to end.
//
//	hub-engine LIBRARY [clickhouse-local arguments]
//
// It is a second binary because the dynamic loader that the library needs would
// make hub itself depend on libc, and because the library aborts its whole
// process when it fails: the process that acknowledges reports must not be that
// one. hub (package engine) starts it; nobody else has a reason to.
//
// Standard input is its lease of life: at end of file, which comes when the
// parent dies by whatever signal, it exits at once. The library never returns
// while it is well, so a return is a failure: its error goes to standard error
// and the exit status is 1.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: hub-engine LIBRARY [arguments]; it is started by hub, try: hub engine --help")
		os.Exit(2)
	}
	go exitWithParent()
	syscall.Umask(0o077) // data and log are the owner's alone
	// An abort would otherwise write gigabytes of core.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	err := run(os.Args[1], os.Args[2:])
	fmt.Fprintln(os.Stderr, "hub-engine:", err)
	os.Exit(1)
}

// exitWithParent ends the process when standard input does.
func exitWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// run hands args to the library's command line and returns why it came back.
func run(library string, args []string) error {
	runtime.LockOSThread()
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("open the engine library: %w", err)
	}
	var (
		query       func(argc int32, argv unsafe.Pointer) unsafe.Pointer
		resultError func(result unsafe.Pointer) string
	)
	purego.RegisterLibFunc(&query, handle, "chdb_query_cmdline")
	purego.RegisterLibFunc(&resultError, handle, "chdb_result_error")

	argv := cStrings(append([]string{"hub-engine"}, args...))
	result := query(int32(len(argv)-1), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if result != nil {
		if message := resultError(result); message != "" {
			return fmt.Errorf("the engine ended: %s", message)
		}
	}
	return fmt.Errorf("the engine ended without an error")
}

// cStrings returns the strings as C wants them: each ended by a zero byte, the
// list by a nil pointer.
func cStrings(list []string) []*byte {
	pointers := make([]*byte, 0, len(list)+1)
	for _, s := range list {
		bytes := append([]byte(s), 0)
		pointers = append(pointers, &bytes[0])
	}
	return append(pointers, nil)
}
