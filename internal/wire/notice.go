package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"felhom.eu/hub/internal/hub"
)

// noticeVersion is the version of the encoding; see decisionVersion.
const noticeVersion = 1

type noticeV1 struct {
	Version int             `json:"v"`
	Commits []fleetCommitV1 `json:"commits"`
	Events  []eventV1       `json:"events"`
}

// Times are Unix milliseconds, as in a decision.
type fleetCommitV1 struct {
	Revision    string      `json:"revision"`
	Author      string      `json:"author"`
	CommittedAt int64       `json:"committed_at"`
	Subject     string      `json:"subject"`
	Signer      string      `json:"signer"`
	Verdict     hub.Verdict `json:"verdict"`
	Reason      string      `json:"reason"`
	Why         string      `json:"why"`
	DecidedAt   int64       `json:"decided_at"`
	Hosts       uint32      `json:"hosts"`
	Added       uint32      `json:"added"`
	Removed     uint32      `json:"removed"`
	Changed     uint32      `json:"changed"`
	BadFiles    uint32      `json:"bad_files"`
}

// maxNoticeText bounds each text of a notice, in bytes: who writes a commit may
// put anything of any length into it.
const maxNoticeText = 4 << 10

// EncodeNotice returns the body of a spool record of kind KindNotice. Times keep
// their millisecond and lose what is finer. Texts are made UTF-8 and cut to
// 4 KiB, since a commit's author and subject may be anything. It fails on what
// DecodeNotice would refuse.
func EncodeNotice(n hub.Notice) ([]byte, error) {
	out := noticeV1{Version: noticeVersion, Commits: make([]fleetCommitV1, len(n.Commits)), Events: encodeEvents(n.Events)}
	for i, c := range n.Commits {
		if err := countable(c); err != nil {
			return nil, fmt.Errorf("encode notice: commit %q: %w", c.Revision, err)
		}
		out.Commits[i] = fleetCommitV1{
			Revision: c.Revision, Author: noticeText(c.Author), CommittedAt: c.CommittedAt.UnixMilli(),
			Subject: noticeText(c.Subject), Signer: noticeText(c.Signer),
			Verdict: c.Verdict, Reason: c.Reason, Why: noticeText(c.Why), DecidedAt: c.DecidedAt.UnixMilli(),
			Hosts: uint32(c.Hosts), Added: uint32(c.Added), Removed: uint32(c.Removed), Changed: uint32(c.Changed),
			BadFiles: uint32(c.BadFiles),
		}
	}
	for i := range out.Events {
		out.Events[i].Reason = noticeText(out.Events[i].Reason)
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("encode notice: %w", err)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode notice: %w", err)
	}
	return body, nil
}

// DecodeNotice reads what EncodeNotice wrote; times are UTC. It refuses another
// version, an unknown field or verdict, events of two months, and anything that
// is not whole.
func DecodeNotice(body []byte) (hub.Notice, error) {
	var in noticeV1
	if err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true)); err != nil {
		return hub.Notice{}, fmt.Errorf("decode notice: %w", err)
	}
	if in.Version != noticeVersion {
		return hub.Notice{}, fmt.Errorf("decode notice: version %d is not %d: a newer hub wrote it", in.Version, noticeVersion)
	}
	if err := in.check(); err != nil {
		return hub.Notice{}, fmt.Errorf("decode notice: %w", err)
	}
	var n hub.Notice
	for _, c := range in.Commits {
		n.Commits = append(n.Commits, c.fleetCommit())
	}
	for _, e := range in.Events {
		n.Events = append(n.Events, e.event())
	}
	return n, nil
}

// check says what is wrong with a notice, if anything is.
func (n noticeV1) check() error {
	for _, c := range n.Commits {
		if err := c.check(); err != nil {
			return fmt.Errorf("commit %q: %w", c.Revision, err)
		}
	}
	for _, e := range n.Events {
		if err := e.checkNoticed(); err != nil {
			return fmt.Errorf("event %q: %w", e.ID, err)
		}
		// The table events is partitioned by month, and one record is one insert.
		if e.month() != n.Events[0].month() {
			return fmt.Errorf("event %q was detected in another month than event %q", e.ID, n.Events[0].ID)
		}
	}
	return nil
}

func (c fleetCommitV1) check() error {
	if c.Revision == "" {
		return errors.New("it lacks its revision")
	}
	switch c.Verdict {
	case hub.CommitApplied:
	case hub.CommitHeld, hub.CommitRejected:
		if c.Reason == "" {
			return fmt.Errorf("it is %s without a reason", c.Verdict)
		}
	default:
		return fmt.Errorf("%q is no verdict", c.Verdict)
	}
	return nil
}

// checkNoticed is for an event that need not be about a host.
func (e eventV1) checkNoticed() error {
	switch {
	case e.ID == "" || e.Type == "":
		return errors.New("it lacks its id or type")
	case e.HostID != "" && !hub.ValidHostID(e.HostID):
		return fmt.Errorf("%q is not a host id", e.HostID)
	case e.CustomerID != "" && !hub.ValidCustomerName(e.CustomerID):
		return fmt.Errorf("%q is not a customer", e.CustomerID)
	}
	return nil
}

// month counts the months up to the one in which the event was detected.
func (e eventV1) month() int {
	year, month, _ := instant(e.DetectedAt).Date()
	return 12*year + int(month)
}

func (c fleetCommitV1) fleetCommit() hub.FleetCommit {
	return hub.FleetCommit{
		Revision: c.Revision, Author: c.Author, CommittedAt: instant(c.CommittedAt), Subject: c.Subject, Signer: c.Signer,
		Verdict: c.Verdict, Reason: c.Reason, Why: c.Why, DecidedAt: instant(c.DecidedAt),
		Hosts: int(c.Hosts), Added: int(c.Added), Removed: int(c.Removed), Changed: int(c.Changed),
		BadFiles: int(c.BadFiles),
	}
}

// countable refuses a count that does not fit its column.
func countable(c hub.FleetCommit) error {
	for _, n := range []int{c.Hosts, c.Added, c.Removed, c.Changed, c.BadFiles} {
		if int(uint32(n)) != n {
			return fmt.Errorf("%d is no number of hosts", n)
		}
	}
	return nil
}

// noticeText returns text as UTF-8 of at most maxNoticeText bytes.
func noticeText(text string) string {
	text = strings.ToValidUTF8(text, string(utf8.RuneError))
	if len(text) <= maxNoticeText {
		return text
	}
	end := maxNoticeText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
