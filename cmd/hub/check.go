package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/hub"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Say what is wrong with a configuration, its files and connections", Args: cobra.NoArgs,
		Long: `Read the configuration and try what it names: folders, identities, the fleet
repository and ClickHouse. Nothing is changed. Exit status 1 where something is wrong.

With --audit, which may run beside the hub, the spool is compared with ClickHouse
instead, hour by hour (UTC): a gap is an acknowledged, shipped record that is not
there or not whole, a double one that is there more than once. What still waits
to be shipped is neither. Exit status 1 where there is a gap or a double.`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "one finding a line, with --audit everything on one line,")
	audit := cmd.Flags().Bool("audit", false, "compare the spool with ClickHouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var findings []app.Finding
		cfg, err := loadConfig(*file)
		if *audit {
			if err != nil {
				return err
			}
			return runAudit(cmd.Context(), cmd.OutOrStdout(), cfg, *asJSON)
		}
		if err == nil {
			findings = append([]app.Finding{{Area: "config", OK: true, Message: *file}}, app.Check(cmd.Context(), cfg, "")...)
		} else {
			findings = configFindings(err)
		}
		return printFindings(cmd.OutOrStdout(), findings, *asJSON)
	}
	return cmd
}

// configFindings turns the error of reading a configuration into findings.
func configFindings(err error) []app.Finding {
	var mistakes *config.Error
	if !errors.As(err, &mistakes) {
		return []app.Finding{{Area: "config", Message: err.Error(), Hint: hintOf(err)}}
	}
	var findings []app.Finding
	for _, p := range mistakes.Problems {
		hint := p.Hint
		p.Hint = ""
		findings = append(findings, app.Finding{Area: "config", Message: p.String(), Hint: hint})
	}
	return findings
}

func printFindings(w io.Writer, findings []app.Finding, asJSON bool) error {
	wrong := 0
	for _, f := range findings {
		if !f.OK {
			wrong++
		}
		if asJSON {
			if err := printJSON(w, f); err != nil {
				return err
			}
			continue
		}
		verdict := "ok"
		if !f.OK {
			verdict = "WRONG"
		}
		fmt.Fprintf(w, "%-5s  %-10s  %s\n", verdict, f.Area, f.Message)
		if f.Hint != "" {
			fmt.Fprintf(w, "%-5s  %-10s  -> %s\n", "", "", f.Hint)
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%s", count(wrong, "thing is wrong", "things are wrong"))
	}
	return nil
}

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the schema in ClickHouse up to date", Args: cobra.NoArgs,
		Long: `Apply the schema steps that the database lacks. hub serve does the same at its
start; a step that is applied already is never applied again.`,
	}
	file := configFlag(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "only print the steps")
	check := cmd.Flags().Bool("check", false, "as --dry-run, and exit with 1 where there are any")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		verb := "applied"
		if *dryRun || *check {
			verb = "pending"
		}
		steps, err := app.Migrate(cmd.Context(), cfg, "", *dryRun || *check)
		for _, s := range steps {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %d  %s\n", verb, s.Version, s.Name)
		}
		if err != nil {
			return err
		}
		if len(steps) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "the schema is up to date")
		} else if *check {
			return &hub.Error{Message: count(len(steps), "schema step is pending", "schema steps are pending"), Hint: "hub migrate applies them"}
		}
		return nil
	}
	return cmd
}

// count puts a number before the words that fit it.
func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}
