package demo

import (
	"bytes"
	_ "embed"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// pace is how fast the demo's time runs. Real hosts report every 15 minutes and
// are stale after 30 and down after 60.
type pace struct {
	speed  float64
	report time.Duration // between two reports of a host
	stale  time.Duration
	down   time.Duration
	judge  time.Duration // between two looks of the switch
	pull   time.Duration // between two looks at the fleet repository
}

const maxSpeed = 1000

func paceOf(speed float64) (pace, error) {
	if !(speed > 0 && speed <= maxSpeed) {
		return pace{}, fmt.Errorf("speed %v: it must be over 0 and at most %d", speed, maxSpeed)
	}
	scaled := func(real time.Duration) time.Duration {
		d := time.Duration(float64(real) / speed)
		return max(d.Round(time.Millisecond), time.Millisecond)
	}
	return pace{
		speed:  speed,
		report: scaled(15 * time.Minute),
		stale:  scaled(30 * time.Minute),
		down:   scaled(60 * time.Minute),
		judge:  max(scaled(time.Minute), 200*time.Millisecond),
		// Nobody waits long for a pushed commit, however slow the time.
		pull: min(max(scaled(time.Minute), 2*time.Second), 5*time.Second),
	}, nil
}

// ports are where the demo listens, all on the loopback address.
type ports struct{ agents, admin, analysts int }

// freePorts returns the usual ports, and free ones in place of those that are
// taken.
func freePorts() (ports, error) { return freePortsNear(ports{8080, 8081, 8123}) }

func freePortsNear(usual ports) (p ports, err error) {
	for _, port := range []struct {
		into  *int
		usual int
	}{{&p.agents, usual.agents}, {&p.admin, usual.admin}, {&p.analysts, usual.analysts}} {
		l, err := net.Listen("tcp", loopback(port.usual))
		if err != nil {
			l, err = net.Listen("tcp", loopback(0))
		}
		if err != nil {
			return p, err
		}
		defer l.Close() // all are held until all are found
		*port.into = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

//go:embed hub.yaml.tmpl
var configText string

var configTemplate = template.Must(template.New(configFile).Option("missingkey=error").Parse(configText))

// writeConfig writes hub.yaml anew, and returns its path.
func (f folder) writeConfig(p ports, t pace) (string, error) {
	var text, aligned bytes.Buffer
	err := configTemplate.Execute(&text, map[string]any{
		"File": quote(f.path(configFile)), "Speed": t.speed,
		"Listen": loopback(p.agents), "AdminListen": loopback(p.admin), "HTTPPort": p.analysts,
		"Pull": brief(t.pull), "Report": brief(t.report), "Judge": brief(t.judge),
		"Stale": brief(t.stale), "Down": brief(t.down),
	})
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text.String()) {
		if setting, comment, ok := strings.Cut(line, "\t"); ok {
			line = fmt.Sprintf("%-34s%s", setting, comment)
		}
		aligned.WriteString(line)
	}
	file := f.path(configFile)
	return file, os.WriteFile(file, aligned.Bytes(), 0o600)
}
