package fleetops

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// create writes a new file, and the folders above it. It fails with fs.ErrExist
// where there is one. The file appears whole or not at all; it is not synced:
// what counts is the commit.
func create(file string, data []byte) error { return createAs(file, data, 0o644) }

func createAs(file string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	temp, err := writeTemp(file, data, mode)
	if err != nil {
		return err
	}
	err = os.Link(temp, file) // never replaces, unlike a rename
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Some file systems have no links.
		if _, statErr := os.Lstat(file); errors.Is(statErr, fs.ErrNotExist) {
			return os.Rename(temp, file)
		}
	}
	return errors.Join(err, os.Remove(temp))
}

// replace writes an existing file anew, at once.
func replace(file string, data []byte) error {
	return replaceAll(map[string][]byte{file: data})
}

// replaceAll writes existing files anew. What can fail, as on a full disk or in
// a folder that may not be written to, fails before the first takes its place:
// then all are as they were.
func replaceAll(files map[string][]byte) (err error) {
	var temps []string
	defer func() {
		for _, temp := range temps {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	names := sortedKeys(files)
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		temp, err := writeTemp(name, files[name], info.Mode().Perm())
		if err != nil {
			return err
		}
		temps = append(temps, temp)
	}
	for _, name := range names {
		if err := os.Rename(temps[0], name); err != nil {
			return err
		}
		temps = temps[1:]
	}
	return nil
}

// writeTemp writes data to a file beside the one it is meant for.
func writeTemp(file string, data []byte, mode fs.FileMode) (string, error) {
	temp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+"."+rand.Text()[:8])
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(temp))
	}
	return temp, nil
}
