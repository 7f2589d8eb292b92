package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
)

func spoolCommand() *cobra.Command {
	cmd := group("spool", "Look into the spool, and at records that could not become rows")
	cmd.AddCommand(spoolVerifyCommand(), spoolShowCommand(), spoolExportCommand(), spoolReplayCommand())
	return cmd
}

// aboutPosition is the end of the help of commands that take positions.
const aboutPosition = `A POSITION is as show prints it: the first digits of a spool id, a slash and a
sequence number. The number alone will do where only one record has it.`

// shortID is how many digits of a spool id are shown; as many as tell apart the
// volumes of many years.
const shortID = 8

// shortPosition is how a record is shown.
func shortPosition(p hub.Position) string {
	return fmt.Sprintf("%s/%d", p.SpoolID.String()[:shortID], p.Seq)
}

// readRejected reads what the hub of a configuration keeps; its own folder does,
// whether a hub runs or not.
func readRejected(file string) (rejected.Contents, string, error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return rejected.Contents{}, "", err
	}
	dir := app.RejectedDir(cfg)
	kept, err := rejected.Read(dir)
	slices.SortStableFunc(kept.Entries, func(a, b rejected.Entry) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	return kept, dir, err
}

// choose returns the entries that are named, each once, or all where none is.
func choose(entries []rejected.Entry, named []string) ([]rejected.Entry, error) {
	if len(named) == 0 {
		return entries, nil
	}
	var chosen []rejected.Entry
	for _, text := range named {
		e, err := find(entries, text)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(chosen, func(c rejected.Entry) bool { return c.Position == e.Position }) {
			chosen = append(chosen, e)
		}
	}
	return chosen, nil
}

// find returns the entry that a position, maybe abbreviated, names.
func find(entries []rejected.Entry, text string) (rejected.Entry, error) {
	id, number, ok := strings.Cut(text, "/")
	if !ok {
		id, number = "", text
	}
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || strings.Trim(id, "0123456789abcdef") != "" {
		return rejected.Entry{}, wrongUse{fmt.Errorf("%q is no position: write it as hub spool show prints it, as 1f2e3d4c/42", text)}
	}
	var found []rejected.Entry
	for _, e := range entries {
		if e.Seq == seq && strings.HasPrefix(e.SpoolID.String(), id) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return rejected.Entry{}, &hub.Error{Message: "no rejected record " + text + " is kept", Hint: "hub spool show lists those that are"}
	case 1:
		return found[0], nil
	}
	return rejected.Entry{}, &hub.Error{Message: fmt.Sprintf("%s may be any of %d records: %s and %s are two", text, len(found), found[0].Position.Text(), found[1].Position.Text()),
		Hint: "write more digits of the spool id"}
}

// damagedFiles is the error of lines that cannot be read; nil where there are none.
func damagedFiles(w io.Writer, dir string, damage []rejected.Damage) error {
	if len(damage) == 0 {
		return nil
	}
	for _, d := range damage[:min(len(damage), maxShown)] {
		fmt.Fprintf(w, "damaged: %s/%s\n", dir, d)
	}
	return &hub.Error{Message: count(len(damage), "line of the files of rejected records is damaged", "lines of the files of rejected records are damaged"),
		Hint: "the table rejected_reports has the records too"}
}

// orNone is a text, or "-" for none.
func orNone(text string) string { return cmp.Or(text, "-") }
