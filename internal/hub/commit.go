package hub

import "time"

// Verdict is what became of a head of the fleet repository.
type Verdict string

// The verdicts. A held head waits for an operator's word, a rejected one for
// another commit.
const (
	CommitApplied  Verdict = "applied"
	CommitHeld     Verdict = "held"
	CommitRejected Verdict = "rejected"
)

// FleetCommit is a head of the fleet repository and what the hub decided about
// it, as the table fleet_commits holds it.
type FleetCommit struct {
	Revision    string
	Author      string // name and address as written in the commit; proves nothing
	CommittedAt time.Time
	Subject     string // first line of the message
	Signer      string // who signed it, by allowed_signers_file; empty: signatures are not required

	Verdict   Verdict
	Reason    string // short fixed word where it is not applied: the type of the event
	Why       string // for people: what is wrong and what to do next
	DecidedAt time.Time

	Hosts, Added, Removed, Changed int // hosts in it, and against the commit that was in force
	BadFiles                       int // hosts that keep their last good record
}

// Notice is what the hub says of its fleet, written to the spool as one record:
// a verdict and its event are durable together or not at all.
type Notice struct {
	Commits []FleetCommit
	Events  []Event
}
