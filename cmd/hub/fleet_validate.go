package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/annotate"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

var validateFormats = []string{"text", "json", "github", "sarif"}

func fleetValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validate [DIR]", Short: "List every mistake in a fleet folder", Args: cobra.MaximumNArgs(1),
		Long: `Read a fleet folder as the hub does, and list every mistake with its file, line
and column; and what the hub takes and a reviewer should not: secrets in the
clear, keys that are or soon will be expired, a guard left open. It needs no
network, no identity and no hub. Seals are checked by their form and against
recipients.txt; with --identity they are opened too.

Exit status 1 where there is a mistake; warnings alone are fine, but for --strict.

A line that only looks like a secret may end with: # validate: not-a-secret

The forms "github" (workflow commands) and "sarif" (2.1.0, for code scanning) name
files from the top of the repository. The rules, as they and JSON name them:

` + ruleList(),
	}
	dir := dirFlag(cmd)
	identities := cmd.Flags().StringArray("identity", nil, "age identity `file` that must open the seals; may be given again")
	format := cmd.Flags().String("format", "text", strings.Join(validateFormats, ", "))
	strict := cmd.Flags().Bool("strict", false, "exit status 1 for warnings too")
	asJSON := jsonFlag(cmd, `{"ok":…,"customers":…,"hosts":…,"problems":[…]}`)
	cmd.MarkFlagsMutuallyExclusive("format", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			*dir = args[0]
		}
		if *asJSON {
			*format = "json"
		}
		if !slices.Contains(validateFormats, *format) {
			return wrongUse{fmt.Errorf("--format is %s, not %q", strings.Join(validateFormats, ", "), *format)}
		}
		fleet, problems, err := fleetops.Validate(*dir, *identities...)
		if err != nil {
			return err
		}
		if err := printProblems(cmd.OutOrStdout(), *format, *dir, fleet, problems); err != nil {
			return err
		}
		mistakes := fleetops.Errors(problems)
		warnings := len(problems) - mistakes
		switch {
		case mistakes > 0:
			return fmt.Errorf("the fleet has %s", count(mistakes, "mistake", "mistakes"))
		case *strict && warnings > 0:
			return fmt.Errorf("the fleet has %s", count(warnings, "warning", "warnings"))
		}
		return nil
	}
	return cmd
}

func ruleList() string {
	var out strings.Builder
	for _, rule := range fleetfile.Rules() {
		fmt.Fprintf(&out, "  %-16s %s\n", rule.ID, rule.Text)
	}
	return strings.TrimRight(out.String(), "\n")
}

// printProblems prints what validating the fleet of dir found; fleet is nil
// where the hub would not take it.
func printProblems(w io.Writer, format, dir string, fleet *hub.Fleet, problems []hub.Problem) error {
	switch format {
	case "json":
		return printVerdict(w, fleet, problems)
	case "github", "sarif":
		named, err := fleetops.FromRepository(dir, problems)
		if err != nil {
			return err
		}
		if format == "github" {
			return annotate.GitHub(w, named)
		}
		tool := annotate.Tool{Name: "hub fleet validate", Version: Version}
		for _, rule := range fleetfile.Rules() {
			tool.Rules = append(tool.Rules, annotate.Rule(rule))
		}
		return annotate.SARIF(w, tool, named)
	}
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
	}
	if fleetops.Errors(problems) > 0 {
		return nil
	}
	customers, hosts := sizeOf(fleet)
	_, err := fmt.Fprintf(w, "ok: %s, %s\n", count(customers, "customer", "customers"), count(hosts, "host", "hosts"))
	return err
}

func printVerdict(w io.Writer, fleet *hub.Fleet, problems []hub.Problem) error {
	customers, hosts := sizeOf(fleet)
	return printJSON(w, struct {
		OK        bool          `json:"ok"` // warnings or not
		Customers int           `json:"customers"`
		Hosts     int           `json:"hosts"` // that are not retired
		Problems  []hub.Problem `json:"problems"`
	}{fleetops.Errors(problems) == 0, customers, hosts, append([]hub.Problem{}, problems...)})
}

// sizeOf counts; 0 where there is no fleet.
func sizeOf(fleet *hub.Fleet) (customers, hosts int) {
	if fleet == nil {
		return 0, 0
	}
	for range fleet.Customers() {
		customers++
	}
	return customers, fleet.Len()
}
