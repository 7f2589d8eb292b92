// Package fleetops is what operators do to a fleet folder: begin one, enroll and
// retire hosts, add and replace keys, seal them anew, validate.
//
// Each operation works out the files first, from the folder as an fs.FS, and
// only then writes them: [EnrollFiles] gives the same files to a caller that
// commits them to git instead. A new file never takes the place of an existing
// one, and no reader ever sees half a file.
package fleetops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"felhom.eu/hub/internal/fleetfile"
)

// ResolveDir returns the fleet folder that dir means: dir itself where it holds
// fleet.yaml, or its folder "fleet" where that does.
func ResolveDir(dir string) (string, error) {
	if dir == "" {
		dir = "."
	}
	for _, candidate := range []string{dir, filepath.Join(dir, "fleet")} {
		_, err := os.Stat(filepath.Join(candidate, fleetfile.FleetPath))
		if err == nil {
			return candidate, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", err
		}
	}
	return "", fmt.Errorf("no fleet here: neither %s nor its folder fleet holds %s; begin one with: hub fleet init %s",
		dir, fleetfile.FleetPath, filepath.Join(dir, "fleet"))
}
