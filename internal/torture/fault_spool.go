package torture

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// spoolDisk is the size of the disk for full-disk: four volumes and a bit.
const spoolDisk = "1100m"

// mountSpool puts the spool on a small disk of its own.
func mountSpool(s *stand) (undo func() error, err error) {
	if err := os.MkdirAll(s.spoolDir(), 0o700); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.dataDir(), s.spoolDir()} {
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, err
		}
	}
	mount := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0700,size="+spoolDisk, "tmpfs", s.spoolDir())
	if out, err := mount.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: a small disk cannot be mounted (root may): %s", errSkip, strings.TrimSpace(string(out)))
	}
	return func() error { return exec.Command("umount", s.spoolDir()).Run() }, nil
}

// fullDisk takes away all free space. In every second round the hub is killed
// meanwhile, so that it has to begin without any.
func fullDisk(s *stand, n int) (time.Duration, error) {
	if err := s.traffic(500*time.Millisecond, time.Second); err != nil {
		return 0, err
	}
	filler := filepath.Join(s.spoolDir(), "filler")
	if err := fill(filler); err != nil {
		return 0, err
	}
	if n%2 == 0 {
		s.killHub()
		if err := s.startHub(); err != nil {
			return 0, err
		}
		if err := s.until("a hub that is not ready", func() bool { st, err := s.status(); return err == nil && !st.Ready }); err != nil {
			return 0, err
		}
	}
	if err := s.traffic(2*time.Second, 3*time.Second); err != nil {
		return 0, err
	}
	if err := os.Remove(filler); err != nil {
		return 0, err
	}
	freed := time.Now()
	return since(freed, s.acknowledges(freed))
}

// fill writes a file until the disk is full.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for zeros := make([]byte, 1<<20); len(zeros) > 0; {
		if _, err := f.Write(zeros); err != nil {
			zeros = zeros[:len(zeros)/2] // to the last byte
		}
	}
	return nil
}

func twoHubs(s *stand, _ int) (time.Duration, error) {
	if err := s.traffic(200*time.Millisecond, time.Second); err != nil {
		return 0, err
	}
	log := filepath.Join(s.dir, "second.log")
	began := time.Now()
	second, err := s.serve("127.0.0.1:0", "127.0.0.1:0", log)
	if err != nil {
		return 0, err
	}
	status, err := second.wait(stopWithin)
	took := time.Since(began)
	if err == nil && status == 0 {
		err = fmt.Errorf("a second hub ran on the same data_dir and ended with status 0: see %s", log)
	}
	if err != nil {
		return 0, err
	}
	return took, s.acknowledges(time.Now())
}

// restoredSpool puts an older copy of the spool back. In every second round the
// copy has records that were shipped after it was made.
func restoredSpool(s *stand, n int) (time.Duration, error) {
	if n%2 == 1 {
		s.proxy.make(trouble{what: away})
	}
	if err := s.traffic(500*time.Millisecond, time.Second); err != nil {
		return 0, err
	}
	old := filepath.Join(s.dir, "yesterday")
	err := s.between(func() error {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		return os.CopyFS(old, os.DirFS(s.spoolDir()))
	})
	if err != nil {
		return 0, err
	}
	s.proxy.make(trouble{})
	if err := s.traffic(500*time.Millisecond, 1500*time.Millisecond); err != nil {
		return 0, err
	}
	down := time.Now()
	err = s.between(func() error {
		if err := errors.Join(os.RemoveAll(s.spoolDir()), os.Rename(old, s.spoolDir())); err != nil {
			return err
		}
		return privateFiles(s.spoolDir())
	})
	return since(down, err)
}

// privateFiles takes the group's and others' rights away, which CopyFS gives.
func privateFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, e.Name()), 0o600))
	}
	return errors.Join(err, os.Chmod(dir, 0o700))
}

// between does something while the hub is stopped and no report is under way;
// where ClickHouse is there, it has all of them.
func (s *stand) between(f func() error) error {
	if err := s.pause(); err != nil {
		return err
	}
	if s.proxy.trouble.Load().what != away {
		if err := s.drained(); err != nil {
			return err
		}
	}
	if err := s.stopHub(); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	s.resume()
	_, err := s.restart(time.Now())
	return err
}
