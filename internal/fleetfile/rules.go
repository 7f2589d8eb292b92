package fleetfile

import "felhom.eu/hub/internal/hub"

// Rule is a short fixed word for a kind of problem, for scripts and for the
// tools that show problems beside a pull request.
type Rule struct{ ID, Text string }

// Rules lists every rule that a problem of Load or Lint can carry.
func Rules() []Rule {
	return []Rule{
		{"allow-removal", "guards.allowRemoval is not 0"},
		{"case-collision", "Names differ only in case"},
		{"channel", "A channel by which people are told has mistakes"},
		{"deadline", "A deadline of a guest is too short or too long"},
		{"duplicate", "A key of a file, a host id, a key id or a key stands twice"},
		{"invalid", "Anything else that the hub refuses"},
		{"key-expired", "A key is past its notAfter"},
		{"key-expiring", "A key expires within 14 days"},
		{"missing", "Something that must be there is missing or empty"},
		{"name", "File, folder and metadata do not agree, or are no valid names"},
		{"not-looked-at", "A file is too large to be searched for secrets"},
		{"out-of-place", "A file or folder that the hub would not read"},
		{"recipients", "A line of recipients.txt is no recipient to seal to"},
		{"reference", "A host names a customer that is not there"},
		{"schema-line", "A file does not tell editors its schema"},
		{"seal", "A sealed key or URL is damaged, does not open, or belongs elsewhere"},
		{"seal-recipients", "A key or URL is sealed to others than recipients.txt names"},
		{"secret", "A secret stands in the clear"},
		{"size", "A file is larger than what is read"},
		{"syntax", "Not YAML"},
		{"threshold", "A host would be down before it is stale"},
		{"unknown-key", "A key that the hub does not know"},
		{"value", "A value of the wrong form"},
		{"window", "A maintenance window that is none, or has mistakes"},
		{"window-over", "A maintenance window that will not open again"},
		{"yaml-feature", "Something of YAML that is not allowed: aliases, anchors, tags, merge keys, a second document"},
	}
}

// otherRule is the rule of a problem that has none of its own.
const otherRule = "invalid"

// mark gives rule to the problems from the index on that have none. Deferred, it
// names what a whole function reports: its argument is the length before.
func (r *reader) mark(rule string, from int) {
	for i := from; i < len(r.problems); i++ {
		if r.problems[i].Rule == "" {
			r.problems[i].Rule = rule
		}
	}
}

// NameRules gives the rule "invalid" to the problems that have none.
func NameRules(problems []hub.Problem) {
	for i := range problems {
		if problems[i].Rule == "" {
			problems[i].Rule = otherRule
		}
	}
}
