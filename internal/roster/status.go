package roster

import (
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

// maxLogged bounds the problems of one head that are logged; Status has all.
const maxLogged = 20

// Status is what the roster knows of the fleet and its repository.
type Status struct {
	Revision  string    `json:"revision"`            // commit in force; "" = none yet
	AppliedAt time.Time `json:"applied_at,omitzero"` // when this process put it in force
	Author    string    `json:"author,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	Signer    string    `json:"signer,omitempty"` // by allowed_signers_file
	Hosts     int       `json:"hosts"`            // not retired

	HostProblems []hub.Problem `json:"host_problems"` // of files in Revision whose hosts keep their last good record; never null
	BadHosts     int           `json:"bad_hosts"`     // how many hosts these are

	Head     string        `json:"head"`     // newest commit seen on the remote
	Verdict  HeadVerdict   `json:"verdict"`  // on Head
	Problems []hub.Problem `json:"problems"` // of Head as a whole, when that is rejected; never null

	CheckedAt time.Time `json:"checked_at,omitzero"`  // last pull that got an answer from the remote
	LastError string    `json:"last_error,omitempty"` // why the last pull did not bring its head in force
	Frozen    string    `json:"frozen,omitempty"`     // why nothing new can come, where that lasts
}

// HeadVerdict is what was decided about a head; empty: nothing yet.
type HeadVerdict struct {
	Verdict hub.Verdict   `json:"verdict,omitempty"`
	Reason  hub.EventType `json:"reason,omitempty"`  // where it is held or rejected
	Why     string        `json:"why,omitempty"`     // the same for people
	Release string        `json:"release,omitempty"` // what to do about it
	Since   time.Time     `json:"since,omitzero"`
}

// Waiting reports whether Head stays out.
func (s Status) Waiting() bool {
	return s.Verdict.Verdict == hub.CommitHeld || s.Verdict.Verdict == hub.CommitRejected
}

// Status returns the present status.
func (r *Roster) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// settle remembers the verdict on a head, so that it is not judged again.
func (r *Roster) settle(v *verdict) {
	now := r.o.Now()
	r.update(func(s *Status) {
		if r.last == nil || !r.last.same(v) || s.Verdict.Verdict == "" {
			s.Verdict = HeadVerdict{v.verdict, v.reason, v.why, v.release, now}
		}
		s.Head, s.Problems = string(v.head), append([]hub.Problem{}, v.problems...)
	})
	r.last = v
}

// report puts the outcome of a pull into the status and, once for the same
// failure, into the log.
func (r *Roster) report(result Result, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.update(func(s *Status) { s.LastError = text })
	if text == r.logged {
		return
	}
	r.logged = text
	status := r.Status()
	attrs := []any{"error", text, "in_force", gitsync.Hash(status.Revision).Short()}
	switch {
	case text == "":
		r.log.Info("the fleet repository is followed again")
	case r.Current() == nil:
		r.log.Error("no fleet yet, so every agent is turned away: neither this start nor an earlier one could read the repository; trying again", attrs...)
	case result != Failed:
		r.log.Error("the head of the fleet repository stays out, the last good fleet stays in force", append(attrs, "next", status.Verdict.Release)...)
		for _, p := range status.Problems[:min(len(status.Problems), maxLogged)] {
			r.log.Error("problem in the fleet", "commit", gitsync.Hash(status.Head).Short(), "at", p.String())
		}
	default:
		r.log.Warn("the fleet repository cannot be followed, the last good fleet stays in force", attrs...)
	}
}

func problemsOf(bad []fleetfile.BadFile) []hub.Problem {
	all := []hub.Problem{}
	for _, f := range bad {
		all = append(all, f.Problems...)
	}
	return all
}
