// Package annotate writes problems in the forms that forges show beside the
// lines of a pull request: [GitHub] as workflow commands, [SARIF] as a file for
// code scanning. Both find the line only where the problem's file is named
// from the top of the repository, with slashes.
package annotate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"felhom.eu/hub/internal/hub"
)

var (
	escapeMessage  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// GitHub writes each problem as a workflow command, ::error or ::warning, on a
// line. The title is the problem's rule. Source: actions/toolkit,
// packages/core/src/command.ts.
func GitHub(w io.Writer, problems []hub.Problem) error {
	for _, p := range problems {
		properties := "file=" + escapeProperty.Replace(p.File)
		if p.Line > 0 {
			properties += fmt.Sprintf(",line=%d", p.Line)
		}
		if p.Line > 0 && p.Column > 0 {
			properties += fmt.Sprintf(",col=%d", p.Column)
		}
		if p.Rule != "" {
			properties += ",title=" + escapeProperty.Replace(p.Rule)
		}
		if _, err := fmt.Fprintf(w, "::%s %s::%s\n", level(p), properties, escapeMessage.Replace(text(p))); err != nil {
			return err
		}
	}
	return nil
}

func level(p hub.Problem) string {
	if p.Warning {
		return "warning"
	}
	return "error"
}

func text(p hub.Problem) string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + " (" + p.Hint + ")"
}

// Tool is the program that found the problems.
type Tool struct {
	Name, Version string
	Rules         []Rule
}

// Rule is one of the kinds of problem that a tool finds.
type Rule struct{ ID, Text string }

// SARIF writes problems as a SARIF 2.1.0 log with one run
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/). A problem of a whole file
// stands in its first line: code scanning shows nothing without a line.
func SARIF(w io.Writer, tool Tool, problems []hub.Problem) error {
	driver := sarifDriver{Name: tool.Name, Version: tool.Version, Rules: []sarifRule{}}
	for _, rule := range tool.Rules {
		driver.Rules = append(driver.Rules, sarifRule{rule.ID, sarifText{rule.Text}})
	}
	results := make([]sarifResult, 0, len(problems))
	for _, p := range problems {
		var at sarifLocation
		at.Physical.Artifact.URI = (&url.URL{Path: p.File}).String() // escaped, and never taken for one with a scheme
		at.Physical.Region = sarifRegion{StartLine: cmp.Or(p.Line, 1), StartColumn: p.Column}
		results = append(results, sarifResult{RuleID: p.Rule, Level: level(p), Message: sarifText{text(p)}, Locations: []sarifLocation{at}})
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0",
		Runs:    []sarifRun{{Tool: sarifTool{driver}, ColumnKind: "unicodeCodePoints", Results: results}},
	})
}

type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID    string    `json:"id"`
		Short sarifText `json:"shortDescription"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId,omitempty"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical struct {
			Artifact struct {
				URI string `json:"uri"`
			} `json:"artifactLocation"`
			Region sarifRegion `json:"region"`
		} `json:"physicalLocation"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
)
