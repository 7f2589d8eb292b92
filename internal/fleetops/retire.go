package fleetops

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// Retired is a host that was let go.
type Retired struct {
	HostID string
	Reason string
	At     time.Time
	File   string
}

// Retire sets a host's state to retired and writes down why and when. From the
// commit on its keys are unknown; the file stays, so that history has a name.
func Retire(dir, hostID, reason string, now time.Time) (Retired, error) {
	reason = strings.TrimSpace(reason)
	if reason == "" {
		return Retired{}, &hub.Error{Code: hub.Invalid, Message: "a host is retired for a reason", Hint: `say it for those who come later: --reason "replaced by pve-07"`}
	}
	if mistake := fleetfile.TextMistake(reason); mistake != "" {
		return Retired{}, &hub.Error{Code: hub.Invalid, Message: "the reason " + mistake}
	}
	dir, err := ResolveDir(dir)
	if err != nil {
		return Retired{}, err
	}
	f, err := readKeyFile(dir, hub.HostOwner(hostID))
	if err != nil {
		return Retired{}, err
	}
	if f.State == hub.Retired {
		return Retired{}, &hub.Error{Code: hub.Invalid, Message: fmt.Sprintf("host %s is retired already%s", hostID, since(f.Retired))}
	}
	at := now.UTC().Truncate(time.Second)
	data, err := f.Retire(fleetfile.Retirement{At: &at, Reason: reason})
	if err != nil {
		return Retired{}, err
	}
	done := Retired{HostID: hostID, Reason: reason, At: at, File: filepath.Join(dir, f.Name)}
	return done, replace(done.File, data)
}

func since(why *fleetfile.Retirement) string {
	switch {
	case why == nil:
		return ""
	case why.At == nil:
		return ": " + why.Reason
	}
	return fmt.Sprintf(", since %s: %s", why.At.UTC().Format(time.RFC3339), why.Reason)
}
