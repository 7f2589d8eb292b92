package torture

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is one that the harness started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// parent starts every process, on a thread that lives as long as the harness: the
// parent-death signal follows the thread that forked.
var parent = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// startProcess starts a command whose output is appended to a log.
func startProcess(cmd *exec.Cmd, log string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = file, file, attributes()
	started := make(chan error)
	parent() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the status is in ProcessState
	}()
	return p, nil
}

// kill ends it with SIGKILL and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stopWithin is what a hub may take to stop, and a little for a busy machine.
const stopWithin = 15 * time.Second

// stop ends it with SIGTERM and returns its exit status; one that does not end is killed.
func (p *process) stop() (status int, err error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.wait(stopWithin)
}

// wait returns the exit status.
func (p *process) wait(within time.Duration) (status int, err error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		p.kill()
		return 0, fmt.Errorf("%s did not end within %s", p.cmd.Args[0], within)
	}
}
