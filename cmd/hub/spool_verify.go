package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
)

func spoolVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify [DIR]", Short: "Read a spool, offline or beside a running hub, and say what is in it", Args: cobra.MaximumNArgs(1),
		Long: `Read every record of the spool in DIR (a data_dir or the spool folder itself;
default: the data_dir of --config), check it, and print the volumes, the damage
with the sequence numbers that are missing, the cursor and the totals. Nothing is
written and no lock is taken, so it may run beside a hub; the newest records may
then not be acknowledged yet. Exit status 1 where damage was found.`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "everything on one line, with --records one record a line before it,")
	records := cmd.Flags().Bool("records", false, "list every record; neither bodies nor keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := spoolToVerify(args, *file)
		if err != nil {
			return err
		}
		v := verification{Dir: dir, Volumes: []volumeView{}, Damage: []damageView{}, Torn: []damageView{}, Kinds: map[string]int64{}, hosts: map[string]int64{}}
		if err := v.read(cmd.OutOrStdout(), *records, *asJSON); err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), v)
		} else {
			v.print(cmd.OutOrStdout())
		}
		if err == nil && len(v.Damage) > 0 {
			err = &hub.Error{Message: count(len(v.Damage), "range of the spool is damaged", "ranges of the spool are damaged"),
				Hint: "hub check --audit says whether the missing records had reached ClickHouse"}
		}
		return err
	}
	return cmd
}

// spoolToVerify returns the spool's folder: the one named, the one in it, or
// that of the configuration.
func spoolToVerify(args []string, file string) (string, error) {
	if len(args) == 0 {
		cfg, err := loadConfig(file)
		if err != nil {
			return "", err
		}
		return app.SpoolDir(cfg), nil
	}
	if in := app.SpoolIn(args[0]); isFolder(in) {
		return in, nil
	}
	return args[0], nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// topHosts is how many hosts the totals name.
const topHosts = 10

// verification is what hub spool verify --json prints.
type verification struct {
	Dir     string           `json:"dir"`
	Volumes []volumeView     `json:"volumes"`
	Damage  []damageView     `json:"damage"`
	Torn    []damageView     `json:"torn"`
	Cursor  *cursorView      `json:"cursor"` // null: there is none
	Lost    string           `json:"cursor_error,omitempty"`
	Cut     *cutView         `json:"cut,omitempty"`
	Records int64            `json:"records"`
	Waiting int64            `json:"waiting"` // of them, those behind the cursor
	Kinds   map[string]int64 `json:"kinds"`
	Hosts   int              `json:"hosts"`
	Top     []hostCount      `json:"top_hosts"`

	hosts map[string]int64
}

type volumeView struct {
	Volume    string    `json:"volume"`
	Ordinal   uint64    `json:"ordinal"`
	SpoolID   string    `json:"spool_id"`
	Created   time.Time `json:"created,omitzero"`
	Records   int64     `json:"records"`
	Bytes     int64     `json:"bytes"`
	DiskBytes int64     `json:"disk_bytes"`
	First     uint64    `json:"first,omitempty"`
	Last      uint64    `json:"last,omitempty"`
	FirstAt   time.Time `json:"first_at,omitzero"`
	LastAt    time.Time `json:"last_at,omitzero"`
	Closed    bool      `json:"closed"`
	Shipped   bool      `json:"shipped"`
}

type damageView struct {
	Volume string `json:"volume"`
	From   int64  `json:"from"`
	To     int64  `json:"to"`
	First  uint64 `json:"first_missing,omitempty"`
	Last   uint64 `json:"last_missing,omitempty"`
	text   string
}

type cursorView struct {
	Volume uint64 `json:"volume"`
	Offset int64  `json:"offset"`
	Seq    uint64 `json:"seq"`
}

type cutView struct {
	SpoolID string `json:"spool_id,omitempty"`
	First   uint64 `json:"first,omitempty"`
	Last    uint64 `json:"last,omitempty"`
	Open    bool   `json:"open"` // not finished: the cursor stands at its beginning
	Error   string `json:"error,omitempty"`
}

type hostCount struct {
	HostID  string `json:"host_id"`
	Records int64  `json:"records"`
}

type recordView struct {
	SpoolID    string    `json:"spool_id"`
	Seq        uint64    `json:"seq"`
	ReceivedAt time.Time `json:"received_at"`
	Kind       string    `json:"kind"`
	CustomerID string    `json:"customer_id,omitempty"`
	HostID     string    `json:"host_id,omitempty"`
	Bytes      int       `json:"bytes"`
	Volume     uint64    `json:"volume"`
	Offset     int64     `json:"offset"`
}

// read inspects the folder; with list it prints each record.
func (v *verification) read(w io.Writer, list, asJSON bool) error {
	var failed error
	in, err := spool.Inspect(spool.Folder(v.Dir), func(e spool.Entry) {
		v.Records++
		v.Kinds[kindName(e.Kind)]++
		if e.HostID != "" {
			v.hosts[e.HostID]++
		}
		if list && failed == nil {
			failed = printRecord(w, e, asJSON)
		}
	})
	switch {
	case errors.Is(err, spool.ErrNoSpool), errors.Is(err, fs.ErrNotExist):
		return &hub.Error{Message: "no spool is in " + v.Dir, Cause: err, Hint: "name a data_dir or its folder spool, or a configuration with --config"}
	case err != nil:
		return err
	case failed != nil:
		return failed
	}
	v.take(in)
	return nil
}

func (v *verification) take(in spool.Inspection) {
	for _, i := range in.Volumes {
		view := volumeView{Volume: i.Name(), Ordinal: i.Ordinal, SpoolID: i.ID.String(), Created: i.Created, Records: i.Records,
			Bytes: i.Bytes, DiskBytes: i.DiskBytes, FirstAt: i.FirstAt, LastAt: i.LastAt, Closed: i.Closed, Shipped: i.Shipped}
		if i.Records > 0 {
			view.First, view.Last = i.First, i.Next-1
		}
		v.Volumes = append(v.Volumes, view)
		v.Waiting += i.Waiting
	}
	for _, l := range in.Damage {
		v.Damage = append(v.Damage, damageView{l.Name(), l.From, l.To, l.First, l.Last, l.String()})
	}
	for _, t := range in.Torn {
		v.Torn = append(v.Torn, damageView{Volume: t.Name(), From: t.From, To: t.To, text: t.String()})
	}
	if in.CursorErr == nil {
		v.Cursor = &cursorView{in.Cursor.Volume, in.Cursor.Offset, in.Cursor.Seq}
	} else if !errors.Is(in.CursorErr, fs.ErrNotExist) {
		v.Lost = in.CursorErr.Error()
	}
	if s, ok := in.States[ship.CutState]; ok {
		v.Cut = viewCut(s, in.Cursor)
	}
	v.Hosts = len(v.hosts)
	hosts := slices.SortedFunc(maps.Keys(v.hosts), func(a, b string) int {
		return cmp.Or(cmp.Compare(v.hosts[b], v.hosts[a]), cmp.Compare(a, b))
	})
	for _, h := range hosts[:min(topHosts, len(hosts))] {
		v.Top = append(v.Top, hostCount{h, v.hosts[h]})
	}
}

func viewCut(s spool.State, cursor spool.Cursor) *cutView {
	if s.Err != nil {
		return &cutView{Error: s.Err.Error()}
	}
	r, start, err := ship.DescribeCut(s.Data)
	if err != nil {
		return &cutView{Error: err.Error()}
	}
	return &cutView{SpoolID: r.SpoolID.String(), First: r.First, Last: r.Last, Open: start == cursor}
}

func printRecord(w io.Writer, e spool.Entry, asJSON bool) error {
	r := recordView{e.SpoolID.String(), e.Seq, e.ReceivedAt, kindName(e.Kind), e.CustomerID, e.HostID, len(e.Body), e.Start.Volume, e.Start.Offset}
	if asJSON {
		return printJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "%d  %s  %-17s  %7d bytes  %s\n", r.Seq, r.ReceivedAt.Format(time.RFC3339), r.Kind, r.Bytes, r.HostID)
	return err
}

func kindName(k hub.RecordKind) string {
	switch k {
	case hub.KindHostReport:
		return "host_report"
	case hub.KindDecision:
		return "decision"
	case hub.KindNotice:
		return "notice"
	case hub.KindBlind:
		return "blind_time"
	case hub.KindControllerReport:
		return "controller_report"
	case hub.KindControllerEvent:
		return "controller_event"
	case hub.KindDelivery:
		return "delivery"
	}
	return fmt.Sprintf("kind_%d", k)
}

func (v *verification) print(w io.Writer) {
	for _, i := range v.Volumes {
		state, where := "open", "waiting"
		if i.Closed {
			state = "closed"
		}
		if i.Shipped {
			where = "shipped"
		}
		if i.Records == 0 {
			where = "empty"
		}
		fmt.Fprintf(w, "%s  %s  created %s  %d records, %d bytes  seq %d–%d  %s – %s  %s, %s\n", i.Volume, i.SpoolID, stamp(i.Created),
			i.Records, i.Bytes, i.First, i.Last, stamp(i.FirstAt), stamp(i.LastAt), state, where)
	}
	for _, d := range v.Damage {
		missing := "no record is missing"
		if d.Last > 0 {
			missing = fmt.Sprintf("sequence numbers %d–%d are missing", d.First, d.Last)
		}
		fmt.Fprintf(w, "DAMAGED  %s: %s\n", d.text, missing)
	}
	for _, t := range v.Torn {
		fmt.Fprintf(w, "torn     %s: a write that was not finished, never acknowledged\n", t.text)
	}
	fmt.Fprintf(w, "cursor   %s\n", v.cursorText())
	if v.Cut != nil {
		fmt.Fprintf(w, "cut      %s\n", v.Cut.text())
	}
	fmt.Fprintf(w, "total    %d records of %d hosts, %d waiting to be shipped\n", v.Records, v.Hosts, v.Waiting)
	for _, kind := range slices.Sorted(maps.Keys(v.Kinds)) {
		fmt.Fprintf(w, "  %-17s %d\n", kind, v.Kinds[kind])
	}
	for _, h := range v.Top {
		fmt.Fprintf(w, "  %s  %d\n", h.HostID, h.Records)
	}
}

func (v *verification) cursorText() string {
	switch {
	case v.Cursor != nil:
		return fmt.Sprintf("volume %d, next record %d", v.Cursor.Volume, v.Cursor.Seq)
	case v.Lost != "":
		return v.Lost + ": what is shipped is not known; the hub will ask ClickHouse"
	}
	return "none: nothing was shipped yet"
}

func (c *cutView) text() string {
	switch {
	case c.Error != "":
		return c.Error
	case c.Open:
		return fmt.Sprintf("%s/%d-%d, not finished", c.SpoolID, c.First, c.Last)
	}
	return fmt.Sprintf("%s/%d-%d, finished", c.SpoolID, c.First, c.Last)
}

// stamp is an instant for people; "?" where it is not known.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "?"
	}
	return t.Format(time.RFC3339)
}
