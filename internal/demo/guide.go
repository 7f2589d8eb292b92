package demo

import (
	"bytes"
	_ "embed"
	"text/template"

	"felhom.eu/hub/internal/engine"
)

//go:embed guide.txt.tmpl
var guideText string

var guideTemplate = template.Must(template.New("guide").Option("missingkey=error").Parse(guideText))

// guide prints where everything is and what to try, in lines to paste.
func (d *demo) guide(e engine.Description) error {
	keys, err := d.folder.keys()
	if err != nil {
		return err
	}
	host := hostsOf(keys)[0]
	var text bytes.Buffer
	err = guideTemplate.Execute(&text, map[string]any{
		"Title":  func(text string) string { return d.screen.paint("title", text) },
		"Agents": d.hub.Addr(), "Admin": d.hub.AdminAddr(),
		"Analyst": e.HTTPURL(engine.RoleAnalyst).Reveal(), // it is the user's own machine and screen
		"Hub":     quote(d.Program), "Dir": quote(string(d.folder)),
		"Clone": quote(d.folder.path(cloneDir)), "Origin": d.folder.path(originDir),
		"ConfigWord": quote(d.folder.path(configFile)),
		"Config":     d.folder.path(configFile), "Log": d.folder.path(logFile), "Keys": quote(d.folder.path(keysFile)),
		"Host": host, "HostFile": d.folder.hostFile(host), "Customer": customers[0].name,
		"Report": brief(d.pace.report), "Stale": brief(d.pace.stale), "Down": brief(d.pace.down), "Pull": brief(d.pace.pull),
	})
	if err == nil {
		d.screen.print(text.String())
	}
	return err
}
