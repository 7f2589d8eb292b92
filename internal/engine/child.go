package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startUp opens the listeners and then keeps the process alive: the library
// ends with its last query. It is exactly the three queries that the quota of
// user default allows.
const startUp = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
	"SELECT sleepEachRow(1) FROM numbers(1000000000) " +
	"SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null"

// child is one process of the engine.
type child struct {
	cmd       *exec.Cmd
	lease     *os.File      // the pipe that ends the engine when it closes
	listening chan Endpoint // once both ports are open
	failed    chan error    // the first sign of death: a fatal line, or the end
	exited    chan struct{}
	words     []string // last lines that are not the log's; read after exited
}

// maxWords is how many of the last plain lines are kept: the launcher's error
// and what the loader or libc may say before it.
const maxWords = 5

// launch starts the process. The lock is handed down, so that the directory
// stays taken until the process, too, is gone.
func (e *Engine) launch(want ports, lock *os.File) (*child, error) {
	dir := e.options.Dir
	stdin, lease, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command(e.options.Launcher, e.options.Library,
		// The library only half reads its first argument: it must be harmless.
		"--stacktrace",
		"--config-file="+filepath.Join(dir, configFile),
		"--path="+filepath.Join(dir, dataFolder),
		"--log-level=information",
		"--listen_host=127.0.0.1",
		"--tcp_port="+strconv.Itoa(want.tcp),
		"--http_port="+strconv.Itoa(want.http),
		"--query="+startUp)
	cmd.Dir = dir
	// Nothing of the hub's environment is the engine's business: it would look
	// for credentials there.
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin"}
	cmd.Stdin = stdin
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = attributes()
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = lease.Close()
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	c := &child{
		cmd: cmd, lease: lease,
		listening: make(chan Endpoint, 1), failed: make(chan error, 1), exited: make(chan struct{}),
	}
	go c.listen(stderr)
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// logLine is what matters of a line of the engine's log.
type logLine struct {
	Level   string `json:"level"`
	Logger  string `json:"logger_name"`
	Message string `json:"message"`
}

// listen reads the engine's console until the process is gone.
func (c *child) listen(console io.Reader) {
	defer close(c.exited)
	var at Endpoint
	lines := bufio.NewReaderSize(console, 64<<10)
	for {
		text, err := readLine(lines)
		if err != nil {
			break
		}
		var line logLine
		if json.Unmarshal(text, &line) != nil {
			c.hear(string(text))
			continue
		}
		switch {
		case line.Level == "Fatal":
			c.fail(fmt.Errorf("fatal: %s", line.Message))
		case line.Logger == "Application" && at.note(line.Message):
			c.listening <- at
		}
	}
	err := c.cmd.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	c.fail(fmt.Errorf("the process ended: %w", err))
}

// stackFrame begins the lines of a stack trace, which help nobody here.
var stackFrame = regexp.MustCompile(`^\d+\. `)

// hear keeps a line that is not the log's.
func (c *child) hear(line string) {
	line, _, _ = strings.Cut(line, ", Stack trace (when copying")
	if line == "" || stackFrame.MatchString(line) {
		return
	}
	c.words = append(c.words, line)
	c.words = c.words[max(0, len(c.words)-maxWords):]
}

// fail keeps the first sign of death.
func (c *child) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// note takes an address from a line about an open listener, and reports
// whether this line made the endpoint complete.
func (at *Endpoint) note(message string) bool {
	if address, ok := strings.CutPrefix(message, "Listening for native protocol (tcp): "); ok && at.TCP == "" {
		at.TCP = address
		return at.HTTP != ""
	}
	if address, ok := strings.CutPrefix(message, "Listening for http://"); ok && at.HTTP == "" {
		at.HTTP = address
		return at.TCP != ""
	}
	return false
}

// readLine returns the next line without its end. Of one longer than the
// reader's buffer it returns the beginning.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, more, err := r.ReadLine()
	for rest := more; rest && err == nil; {
		line = append([]byte(nil), line...)
		_, rest, err = r.ReadLine()
	}
	return line, err
}

// terminate asks the process to end, and ends it after grace or when hurried is
// done.
func (c *child) terminate(hurried context.Context, grace time.Duration) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.exited:
	case <-hurried.Done():
	case <-timer.C:
	}
	c.kill()
}

// kill ends the process at once and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
	_ = c.lease.Close()
}

// explain adds to cause what the process said last, and names the two failures
// that a person can mend. It is called after kill.
func (c *child) explain(cause error) error {
	words := strings.Join(c.words, "; ")
	switch {
	case strings.Contains(words, "Code: 76."):
		return fmt.Errorf("%w: %s", ErrInUse, c.cmd.Dir)
	case strings.Contains(words, "Code: 210."):
		return fmt.Errorf("%w: choose another for the engine (0 picks a free one): %s", ErrPortTaken, words)
	case words != "":
		return fmt.Errorf("%w: %s", cause, words)
	}
	return cause
}
