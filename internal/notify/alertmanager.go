package notify

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// alertmanager posts alerts to a Prometheus Alertmanager, API v2.
//
// An Alertmanager ends an alert that has no endsAt when nobody repeats it for
// five minutes, as Prometheus does; the hub says things once. So an alarm that
// an end will follow ends in ten years, and what has no end after an hour.
//
// It takes many alerts at once, and would never end one whose end only a digest
// counted: of a digest it is told every part.
type alertmanager struct{ to *target }

const (
	openAlarm = 10 * 365 * 24 * time.Hour
	notice    = time.Hour

	maxAlerts = 500 // in one request
)

func (s *Senders) alertmanager(u *url.URL) (Sender, error) {
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the address of an Alertmanager has no query and no fragment")
	}
	to, err := s.target(u.JoinPath("api/v2/alerts"))
	if err != nil {
		return nil, err
	}
	return &alertmanager{to}, nil
}

// alert is postableAlert of Alertmanager's OpenAPI.
type alert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     *time.Time        `json:"startsAt,omitempty"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// Send implements Sender.
func (a *alertmanager) Send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, a.to.senders.limit)
	defer cancel()
	parts := []Message{m}
	if m.Parts != nil {
		parts = m.Parts()
	}
	now := a.to.senders.o.Now()
	var all []alert
	for _, part := range parts {
		all = append(all, alerts(part, now)...)
	}
	for some := range slices.Chunk(all, maxAlerts) {
		body, err := encode(some)
		if err != nil {
			return &Error{Class: Invalid}
		}
		if _, err := a.to.post(ctx, http.Header{"Content-Type": {"application/json"}}, body); err != nil {
			return err
		}
	}
	return nil
}

// alerts makes the alerts of a message: one, or of an end one for every severity
// that its alarm may have had. Ending an alert that was never raised does nothing.
func alerts(m Message, now time.Time) []alert {
	e := &m.Event
	family, severities := familyOf(e.Type)
	about := func(severity string) alert {
		return alert{
			Labels: labelled(m.Labels, "alertname", family, "severity", severity, "customer", e.CustomerID, "host", e.HostID, "guest", e.GuestID),
			Annotations: filled("summary", m.Text.Subject, "description", m.Text.Render(message.Plain),
				"runbook_url", message.WebURL(m.Links.Runbook), "customer_name", m.Names.Customer, "host_name", m.Names.Host),
			GeneratorURL: message.WebURL(m.Links.Dashboard),
		}
	}
	if message.Ends(e.Type) {
		var ended []alert
		for _, severity := range severities {
			a := about(severity)
			a.EndsAt = e.At.UTC() // without startsAt, so that the alarm keeps its own
			ended = append(ended, a)
		}
		return ended
	}
	a := about(e.Severity())
	at := e.At.UTC()
	a.StartsAt, a.EndsAt = &at, now.UTC().Add(openAlarm)
	if severities == nil {
		// Nothing ends it, and the next of its kind is another one.
		a.EndsAt, a.Labels["event"] = now.UTC().Add(notice), m.ID
	}
	return []alert{a}
}

// familyOf returns what a type and its end have in common, and the severities of
// its alarms; nil: it has no end.
func familyOf(t hub.EventType) (family string, severities []string) {
	switch t {
	case hub.HostStale, hub.HostDown, hub.HostRecovered:
		return "host_silent", []string{hub.HostStale.Severity(), hub.HostDown.Severity()}
	case hub.ControllerStale, hub.ControllerDown, hub.ControllerRecovered:
		return "controller_silent", []string{hub.ControllerStale.Severity(), hub.ControllerDown.Severity()}
	}
	for _, d := range hub.AllDeadlines() {
		if t == d.Overdue() || t == d.Met() {
			return string(d.Overdue()), []string{d.Overdue().Severity()}
		}
	}
	return string(t), nil
}

// labelled is filled with a channel's own labels beside ours, which go first.
func labelled(own map[string]string, pairs ...string) map[string]string {
	m := filled(pairs...)
	for name, value := range own {
		name = strings.Map(labelRune, name)
		if _, ours := m[name]; !ours && value != "" {
			m[name] = value
		}
	}
	return m
}

// labelRune is what stands for a letter in the name of a Prometheus label.
func labelRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}

// filled makes a map of names and values, without the empty ones: to an
// Alertmanager an empty label is none.
func filled(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			m[pairs[i]] = pairs[i+1]
		}
	}
	return m
}
