package plan

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// maxTextCell bounds a value on a terminal, in characters.
const maxTextCell = 60

// Text shows the whole plan for a terminal, without anything that steers one.
func (p *Plan) Text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n%s\n", printable(p.Summary), printable(p.commits()))
	for _, s := range p.sections() {
		fmt.Fprintf(&out, "\n%s (%d)\n", s.title, len(s.rows))
		if s.note != "" {
			fmt.Fprintf(&out, "%s\n", s.note)
		}
		w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		cells := make([]string, len(s.columns))
		for i, c := range s.columns {
			cells[i] = c.name
		}
		fmt.Fprintf(w, "  %s\n", strings.Join(cells, "\t"))
		for _, row := range s.rows {
			for i, cell := range row {
				if s.columns[i].quoted && !s.whole {
					cell = clip(cell, maxTextCell)
				}
				cells[i] = printable(cell)
			}
			fmt.Fprintf(w, "  %s\n", strings.Join(cells, "\t"))
		}
		_ = w.Flush() // into memory
	}
	return out.String()
}
