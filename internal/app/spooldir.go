package app

import (
	"path/filepath"

	"felhom.eu/hub/internal/config"
)

// SpoolDir returns where the spool of a configuration lies.
func SpoolDir(cfg *config.Config) string { return SpoolIn(cfg.DataDir) }

// SpoolIn returns where the spool lies in a data_dir.
func SpoolIn(dataDir string) string { return filepath.Join(dataDir, spoolFolder) }

// RejectedDir returns where a configuration's hub keeps the records that cannot
// become rows.
func RejectedDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, rejectedFolder) }
