package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/rejected"
)

func spoolShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show [POSITION]", Short: "List the acknowledged records that could not become rows, or show one", Args: cobra.MaximumNArgs(1),
		Long: `List the records that the hub acknowledged and could not make rows of, because it
could not read them or ClickHouse refuses them: when each was received, from which
host of which customer, its kind and size, why it was rejected, and whether it was
replayed. With a POSITION the record is shown whole, with its body.

They are read from the folder rejected in data_dir; no hub need run. The table
rejected_reports has the same records, but for those that were replayed. Exit
status 1 where a line of the files is damaged.

` + aboutPosition,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "one record a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kept, dir, err := readRejected(*file)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		switch {
		case len(args) == 1:
			return showRecord(w, kept.Entries, args[0], *asJSON)
		case *asJSON:
			for _, e := range kept.Entries {
				if err := printJSON(w, viewRejected(e)); err != nil {
					return err
				}
			}
		default:
			if err := printRejected(w, kept.Entries); err != nil {
				return err
			}
		}
		return damagedFiles(cmd.ErrOrStderr(), dir, kept.Damage)
	}
	return cmd
}

// rejectedView is a line of hub spool show --json.
type rejectedView struct {
	Position   string    `json:"position"`
	ReceivedAt time.Time `json:"received_at"`
	RejectedAt time.Time `json:"rejected_at"`
	ReplayedAt time.Time `json:"replayed_at,omitzero"`
	Kind       string    `json:"kind"`
	CustomerID string    `json:"customer_id,omitempty"`
	HostID     string    `json:"host_id,omitempty"`
	KeyID      string    `json:"key_id,omitempty"`
	Bytes      int       `json:"bytes"`
	Reason     string    `json:"reason"`
	Body       []byte    `json:"body,omitempty"` // base64; of one record that was named
}

func viewRejected(e rejected.Entry) rejectedView {
	return rejectedView{e.Position.Text(), e.ReceivedAt, e.RejectedAt, e.ReplayedAt, kindName(e.Kind),
		e.CustomerID, e.HostID, e.KeyID, e.Bytes, e.Reason, nil}
}

// maxReason is how much of a reason a list shows, in letters.
const maxReason = 100

func printRejected(w io.Writer, entries []rejected.Entry) error {
	waiting := 0
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(entries) > 0 {
		fmt.Fprintln(table, "POSITION\tRECEIVED\tHOST\tCUSTOMER\tKIND\tBYTES\tREPLAYED\tREASON")
	}
	for _, e := range entries {
		replayed := "no"
		if !e.ReplayedAt.IsZero() {
			replayed = stamp(e.ReplayedAt)
		} else {
			waiting++
		}
		reason := []rune(plain(e.Reason))
		if len(reason) > maxReason {
			reason = append(reason[:maxReason:maxReason], '…')
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", shortPosition(e.Position), stamp(e.ReceivedAt),
			orNone(e.HostID), orNone(e.CustomerID), kindName(e.Kind), e.Bytes, replayed, string(reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s, %d not replayed\n", count(len(entries), "rejected record", "rejected records"), waiting)
	return err
}

func showRecord(w io.Writer, entries []rejected.Entry, position string, asJSON bool) error {
	e, err := find(entries, position)
	if err != nil {
		return err
	}
	r, err := e.Load()
	if err != nil {
		return err
	}
	if asJSON {
		view := viewRejected(e)
		view.Body = r.Body
		return printJSON(w, view)
	}
	replayed := "no"
	if !e.ReplayedAt.IsZero() {
		replayed = stamp(e.ReplayedAt)
	}
	for _, line := range [][2]string{
		{"position", e.Position.Text()}, {"received", stamp(e.ReceivedAt)}, {"rejected", stamp(e.RejectedAt)}, {"replayed", replayed},
		{"kind", kindName(e.Kind)}, {"host", orNone(e.HostID)}, {"customer", orNone(e.CustomerID)}, {"key", orNone(e.KeyID)},
		{"reason", plain(e.Reason)}, {"bytes", fmt.Sprint(e.Bytes)},
	} {
		fmt.Fprintf(w, "%-8s  %s\n", line[0], line[1])
	}
	_, err = fmt.Fprintf(w, "\n%s\n", legible(string(r.Body)))
	return err
}

// plain is a text on one line, without what a terminal might obey.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, text)
}

// legible is a text whose lines stay, and whose bytes that are none, or that a
// terminal might obey, are shown as \x1b.
func legible(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\n' || r == '\t' || unicode.IsPrint(r) && r != unicode.ReplacementChar:
			b.WriteRune(r)
		case r < 0x80 || r == unicode.ReplacementChar && text[i] != 0xef:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
