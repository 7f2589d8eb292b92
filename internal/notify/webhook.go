package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// webhook posts by the Standard Webhooks specification 1.0.0, with a CloudEvent
// 1.0 in structured mode as the body.
type webhook struct {
	to      *target
	secrets []hub.Secret // raw bytes: one, or two while they are rotated
}

// Bounds of a secret, by the specification.
const (
	secretPrefix  = "whsec_"
	minSecret     = 24
	maxSecret     = 64
	maxSecrets    = 2
	maxEventHosts = 500 // so that a body stays near the 20 kB that the specification recommends
)

func (s *Senders) webhook(u *url.URL) (Sender, error) {
	to, err := s.target(u)
	if err != nil {
		return nil, err
	}
	w := &webhook{to: to}
	if u.Fragment == "" {
		return nil, errors.New("the webhook has no secret: write it behind the address, …#whsec_<base64>; while it is rotated, #whsec_new,whsec_old")
	}
	// In the fragment, which is never sent, base64 needs no escapes.
	for text := range strings.SplitSeq(u.Fragment, ",") {
		encoded, ok := strings.CutPrefix(text, secretPrefix)
		secret, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(secret) < minSecret || len(secret) > maxSecret {
			return nil, errors.New("a webhook's secret is whsec_ and the base64 of 24 to 64 random bytes")
		}
		w.secrets = append(w.secrets, hub.NewSecret(string(secret)))
	}
	if len(w.secrets) > maxSecrets {
		return nil, errors.New("a webhook has one secret, or two while it is rotated")
	}
	return w, nil
}

// Send implements Sender.
func (w *webhook) Send(ctx context.Context, m Message) error {
	body, err := cloudEvent(m, w.to.senders.o.Source)
	if err != nil || m.ID == "" || strings.ContainsAny(m.ID, ". \r\n") { // a dot would move the bounds of what is signed
		return &Error{Class: Invalid}
	}
	at := w.to.senders.o.Now()
	_, err = w.to.post(ctx, http.Header{
		"Content-Type":      {"application/cloudevents+json; charset=utf-8"},
		"Webhook-Id":        {m.ID},
		"Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {sign(w.secrets, m.ID, at, body)},
	}, body)
	return err
}

// sign signs with every secret.
func sign(secrets []hub.Secret, id string, at time.Time, body []byte) string {
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret.Reveal()))
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " ")
}

// envelope is a CloudEvent.
type envelope struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            eventData `json:"data"`
}

// eventData is what a webhook is told of an event.
type eventData struct {
	Type           string    `json:"type"`
	Severity       string    `json:"severity"`
	CustomerID     string    `json:"customer_id,omitempty"`
	CustomerName   string    `json:"customer_name,omitempty"`
	HostID         string    `json:"host_id,omitempty"`
	HostName       string    `json:"host_name,omitempty"`
	GuestID        string    `json:"guest_id,omitempty"`
	GuestName      string    `json:"guest_name,omitempty"`
	At             time.Time `json:"at"`                // when the condition first held
	DetectedAt     time.Time `json:"detected_at"`       // when the hub found it
	Episode        string    `json:"episode,omitempty"` // the same in an alarm and its end
	SilenceSeconds float64   `json:"silence_seconds,omitempty"`
	Reason         string    `json:"reason,omitempty"`
	Hosts          []string  `json:"hosts,omitempty"`      // of a mass silence, the first 500
	HostCount      int       `json:"host_count,omitempty"` // of a mass silence, all of them
	Events         int       `json:"events,omitempty"`     // in a digest
	Title          string    `json:"title"`                // in the customer's language
	Text           string    `json:"text"`
	Dashboard      string    `json:"dashboard_url,omitempty"`
	Runbook        string    `json:"runbook_url,omitempty"`

	LastSeen *lastSeen         `json:"last_seen,omitempty"` // of an alarm
	Labels   map[string]string `json:"labels,omitempty"`    // of the channel
}

// lastSeen is what was last known of the host, or of the guest that an alarm is about.
type lastSeen struct {
	PVEVersion    string   `json:"pve_version,omitempty"`
	Guests        *uint32  `json:"guests,omitempty"`
	GuestsRunning *uint32  `json:"guests_running,omitempty"`
	MemPercent    *float64 `json:"mem_percent,omitempty"`
	DiskPercent   *float64 `json:"disk_percent,omitempty"`
	GuestStatus   string   `json:"guest_status,omitempty"`
}

func lastSeenOf(e *hub.Event) *lastSeen {
	s := e.LastSeen
	if s == nil {
		return nil
	}
	out := &lastSeen{PVEVersion: s.PVEVersion, MemPercent: s.MemPercent, DiskPercent: s.DiskPercent, GuestStatus: s.GuestStatus}
	if e.GuestID == "" {
		out.Guests, out.GuestsRunning = &s.Guests, &s.GuestsRunning
	}
	return out
}

func cloudEvent(m Message, source string) ([]byte, error) {
	e := &m.Event
	return encode(envelope{
		SpecVersion: "1.0", ID: m.ID, Source: source, Type: "eu.felhom." + string(e.Type), Subject: subjectOf(m),
		Time: e.At.UTC(), DataContentType: "application/json",
		Data: eventData{
			Type: string(e.Type), Severity: e.Severity(),
			CustomerID: e.CustomerID, CustomerName: m.Names.Customer,
			HostID: e.HostID, HostName: m.Names.Host, GuestID: e.GuestID, GuestName: m.Names.Guest,
			At: e.At.UTC(), DetectedAt: e.DetectedAt.UTC(), Episode: e.Episode, SilenceSeconds: e.SilenceSeconds, Reason: e.Reason,
			Hosts: e.Hosts[:min(len(e.Hosts), maxEventHosts)], HostCount: len(e.Hosts), Events: m.Count,
			Title: m.Text.Subject, Text: m.Text.Render(message.Plain),
			Dashboard: message.WebURL(m.Links.Dashboard), Runbook: message.WebURL(m.Links.Runbook), LastSeen: lastSeenOf(e), Labels: m.Labels,
		},
	})
}

// subjectOf names what an event is about.
func subjectOf(m Message) string {
	switch e := &m.Event; {
	case e.GuestID != "":
		return "guest/" + e.GuestID
	case e.HostID != "":
		return "host/" + e.HostID
	case e.CustomerID != "":
		return "customer/" + e.CustomerID
	}
	return ""
}

// encode writes JSON without HTML's escapes, which only make texts longer.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
