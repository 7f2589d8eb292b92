// Package plan says what a change of the fleet repository will do: the
// difference of two fleet folders in the hub's own terms, not in lines.
//
// It needs no credentials, no identity, no network and no hub: what is sealed
// stays closed. Both folders are walked side by side and equal parts are skipped
// by their content hashes, so the work is that of the change; only where the
// change reaches hosts whose files are as before (a customer's thresholds, the
// guard against mass removal) more is read.
//
// A [Plan] is data, the same for the same two folders and clock. [Plan.Markdown]
// and [Plan.Text] show it, and [Plan.AddReports] adds what the hosts last said.
package plan

import (
	"encoding/json"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// Verdict is what the hub would do with the head.
type Verdict string

// The verdicts.
const (
	Nothing  Verdict = "no_change" // nothing that the hub looks at changes
	Applies  Verdict = "applies"
	Held     Verdict = "held"     // waits for an operator's word
	Rejected Verdict = "rejected" // cannot be applied at all; the fleet stays as it is
)

// Plan is the difference. Its lists are sorted and never null.
type Plan struct {
	Base string `json:"base"` // commit that the head is compared with
	Head string `json:"head"`
	Onto string `json:"onto,omitempty"` // commit to merge into, where that has moved on from Base
	Path string `json:"path"`           // of the fleet folder in the head; "." is the top

	Verdict Verdict `json:"verdict"`
	Summary string  `json:"summary"` // one line of plain text

	Structural []hub.Problem `json:"structural"` // why the hub rejects the whole
	Mistakes   []Mistake     `json:"mistakes"`   // in hosts' files
	Warnings   []Warning     `json:"warnings"`
	Guard      Guard         `json:"guard"`

	Hosts      []HostChange      `json:"hosts"`
	Customers  []CustomerChange  `json:"customers"`
	Keys       []KeyChange       `json:"keys"`
	Thresholds []ThresholdChange `json:"thresholds"`
	Deadlines  []DeadlineChange  `json:"deadlines"`
	Windows    []WindowChange    `json:"windows"`           // of maintenance
	Events     []EventChange     `json:"controller_events"` // that controllers may send
	Channels   []ChannelChange   `json:"channels"`          // by which people are told
	Settings   []ValueChange     `json:"settings"`          // of fleet.yaml
	Recipients []RecipientChange `json:"recipients"`
	Specs      []SpecChange      `json:"specs"` // inert: never sent to an agent

	FilesChanged int      `json:"files_changed"` // that the hub reads
	Reports      []Report `json:"reports"`       // empty without AddReports

	desired map[string]hostSpec // of hosts in the plan, by id
	now     time.Time
}

type hostSpec struct {
	customer string
	json     []byte
}

// Guard is the guard against mass removal. Removed are hosts that are active or
// paused in the base and gone or retired in the head.
type Guard struct {
	Removed  int  `json:"removed"`
	Enrolled int  `json:"enrolled,omitempty"` // active or paused in the base; 0: fewer than 3 are removed, not counted
	AtMost   bool `json:"at_most,omitempty"`  // Enrolled counts all files that were not looked into
	AtLeast  bool `json:"at_least,omitempty"` // counting ended where the answer was clear
	Allowed  int  `json:"allowed"`            // guards.allowRemoval of the head
	Held     bool `json:"held"`
	Need     int  `json:"need,omitempty"` // guards.allowRemoval that lets the head pass; 0: not held
}

// Mistake is what is wrong in a host's file. It costs that host alone.
type Mistake struct {
	Host string `json:"host"`
	Kept bool   `json:"kept"` // it keeps the record of the base; else it has none and is left out
	hub.Problem
}

// Warning is something that is allowed and may be meant otherwise.
type Warning struct {
	Owner   string `json:"owner"` // host/<id>, customer/<name> or fleet
	Message string `json:"message"`
}

// HostChange is one thing that happens to one host.
type HostChange struct {
	Host        string `json:"host"`
	Customer    string `json:"customer"` // in the head, or the last one
	DisplayName string `json:"display_name,omitempty"`
	// Change is enrolled, removed (the file is gone), retired, reinstated,
	// paused, unpaused, moved, renamed, labelled, recorded (a new file of a
	// retired host), forgotten (that one's file is gone) or repaired (its file
	// could not be read).
	Change string `json:"change"`
	Label  string `json:"label,omitempty"` // that changed, where labelled
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
}

// CustomerChange is one thing that happens to one customer.
type CustomerChange struct {
	Customer string `json:"customer"`
	Change   string `json:"change"` // added, removed, blocked, unblocked or renamed
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
}

// KeyChange is what happens to a key.
type KeyChange struct {
	Owner string `json:"owner"` // host/<id>, customer/<name> or fleet
	// Change is added, removed, rotated (Key comes, Old ends), ends (its notAfter
	// changed), expiring (unchanged, and ends within 14 days) or resealed (other
	// ciphertext under the same id).
	Change   string    `json:"change"`
	Key      string    `json:"key"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Was      time.Time `json:"was,omitzero"`      // notAfter before, where it ends otherwise
	Old      string    `json:"old,omitempty"`     // the key that a rotation replaces
	OldEnds  time.Time `json:"old_ends,omitzero"` // its notAfter; zero: it is removed
}

// ThresholdChange is a change of the silence after which hosts alarm, as it holds
// for them. Durations are as in the files; "" is what the hub is configured with.
type ThresholdChange struct {
	SetBy         string   `json:"set_by"`             // the owner whose file did it
	Customer      string   `json:"customer,omitempty"` // of all Hosts; empty where set by the fleet
	Hosts         []string `json:"hosts"`
	StaleFrom     string   `json:"stale_after_from"`
	StaleTo       string   `json:"stale_after_to"`
	DownFrom      string   `json:"down_after_from"`
	DownTo        string   `json:"down_after_to"`
	Effect        string   `json:"effect"`
	AtOnce        []string `json:"at_once,omitempty"` // hosts that this would alarm about at once, by their last reports
	before, after hub.Thresholds
	watched       bool
}

// DeadlineChange is a change of the longest time from one success to the next, as
// it holds for the guests of hosts. Durations are as in the files; "off" is not
// watched.
type DeadlineChange struct {
	SetBy    string   `json:"set_by"`             // the owner whose file did it
	Customer string   `json:"customer,omitempty"` // of all Hosts; empty where set by the fleet
	Hosts    []string `json:"hosts"`
	Deadline string   `json:"deadline"` // backup, restore_test or pbs_verify
	From     string   `json:"from"`
	To       string   `json:"to"`
	Effect   string   `json:"effect"`
}

// WindowChange is what happens to a maintenance window.
type WindowChange struct {
	Owner  string      `json:"owner"` // host/<id>, customer/<name> or fleet
	Window string      `json:"window"`
	Change string      `json:"change"`            // added, removed or changed
	Hosts  int         `json:"hosts"`             // for which it holds
	AtMost bool        `json:"at_most,omitempty"` // Hosts counts all files that were not looked into
	From   string      `json:"from,omitempty"`    // when it opens, and why
	To     string      `json:"to,omitempty"`
	Next   []time.Time `json:"next,omitempty"`   // openings from now on, the first three
	Effect string      `json:"effect,omitempty"` // at the time of the merge
}

// EventChange is a type of event that controllers may send, or no longer.
type EventChange struct {
	Type   string `json:"type"`
	Change string `json:"change"` // taken or refused, from now on
}

// ChannelChange is what happens to a channel. Of its URL nothing is told but the kind.
type ChannelChange struct {
	Owner   string `json:"owner"` // customer/<name> or fleet
	Channel string `json:"channel"`
	Change  string `json:"change"`         // added, removed or changed
	Kind    string `json:"kind,omitempty"` // as alertmanager or mail; empty: the URL is sealed
	From    string `json:"from,omitempty"` // of what it is told
	To      string `json:"to,omitempty"`
	Address string `json:"address,omitempty"` // where changed: that it is another one, in words
}

// ValueChange is a setting that changes.
type ValueChange struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// RecipientChange is a line of recipients.txt that comes or goes: who can open
// what is sealed from then on.
type RecipientChange struct {
	Change      string `json:"change"` // added or removed
	Recipient   string `json:"recipient"`
	Fingerprint string `json:"fingerprint"`
}

func recipientChange(change string, r seal.Recipient) RecipientChange {
	return RecipientChange{Change: change, Recipient: r.String(), Fingerprint: r.Fingerprint()}
}

// SpecChange is a change within desired or drRecord. Objects in a list are told
// apart by vmid, id or name where all have one.
type SpecChange struct {
	Host     string          `json:"host"`
	Customer string          `json:"customer"`
	Path     string          `json:"path"`           // as desired.guests[vmid=101].memory
	From     json.RawMessage `json:"from,omitempty"` // left out: was not there
	To       json.RawMessage `json:"to,omitempty"`   // left out: goes
}

// Report is what the database knows of a host of the plan.
type Report struct {
	Host       string       `json:"host"`
	Customer   string       `json:"customer"`
	LastAt     time.Time    `json:"last_report_at"`
	AgeSeconds float64      `json:"age_seconds"`
	KeyID      string       `json:"key_id"`
	State      string       `json:"state"` // of the switch: ok, stale or down; empty: it has not looked yet
	Differs    []Difference `json:"differs"`
}

// Difference is a place where the desired spec of the head and the last report
// both have a value, and not the same.
type Difference struct {
	Path     string          `json:"path"`
	Desired  json.RawMessage `json:"desired"`
	Reported json.RawMessage `json:"reported"`
}
