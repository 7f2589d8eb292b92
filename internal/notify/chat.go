package notify

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// chat posts a JSON body to a chat service whose host is known.
type chat struct {
	to   *target
	body func(Message) any
	wait func(reply []byte) time.Duration // what the reply says of waiting; nil: the header does
}

// Send implements Sender.
func (c *chat) Send(ctx context.Context, m Message) error {
	body, err := encode(c.body(m))
	if err != nil {
		return &Error{Class: Invalid}
	}
	reply, err := c.to.post(ctx, http.Header{"Content-Type": {"application/json"}}, body)
	var failed *Error
	if c.wait != nil && errors.As(err, &failed) && failed.Class == Busy && failed.RetryAfter == 0 {
		failed.RetryAfter = c.wait(reply)
	}
	return err
}

// The longest texts, in characters, that the services take or, for Slack,
// recommend; with some room for what they count differently.
const (
	slackLimit    = 3900
	discordLimit  = 1900
	telegramLimit = 4000
	teamsLimit    = 8000
)

// The hosts of the services. A URL with another one is refused: it is a mistake,
// or the start of an attack.
var (
	slackHosts   = []string{"hooks.slack.com", "hooks.slack-gov.com"}
	discordHosts = []string{"discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com"}
	teamsHosts   = []string{".webhook.office.com", ".logic.azure.com", ".api.powerplatform.com"} // below them, each tenant has its own
)

func (s *Senders) slack(u *url.URL) (Sender, error) {
	return s.chat(u, slackHosts, "/services/", func(m Message) any {
		return map[string]any{"text": m.Text.RenderWithin(message.Slack, slackLimit), "unfurl_links": false, "unfurl_media": false}
	})
}

func (s *Senders) discord(u *url.URL) (Sender, error) {
	const suppressEmbeds = 1 << 2
	return s.chat(u, discordHosts, "/api/webhooks/", func(m Message) any {
		return map[string]any{
			"content":          m.Text.RenderWithin(message.Markdown, discordLimit),
			"allowed_mentions": map[string]any{"parse": []string{}},
			"flags":            suppressEmbeds,
		}
	})
}

func (s *Senders) teams(u *url.URL) (Sender, error) {
	return s.chat(u, teamsHosts, "/", func(m Message) any { return teamsCard(m.Text) })
}

// teamsCard is an Adaptive Card. Its text stands in text runs, in which there is
// no markup; its links are buttons.
func teamsCard(t message.Text) any {
	var actions []any
	for _, l := range t.Links {
		actions = append(actions, map[string]any{"type": "Action.OpenUrl", "title": l.Label, "url": l.URL})
	}
	t.Links = nil
	var body []any
	for line := range strings.Lines(t.RenderWithin(message.Plain, teamsLimit)) {
		if line = strings.TrimSpace(line); line != "" {
			run := map[string]any{"type": "TextRun", "text": line}
			if len(body) == 0 {
				run["weight"] = "Bolder"
			}
			body = append(body, map[string]any{"type": "RichTextBlock", "inlines": []any{run}})
		}
	}
	card := map[string]any{"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.2", "body": body}
	if actions != nil {
		card["actions"] = actions
	}
	return map[string]any{"type": "message", "attachments": []any{
		map[string]any{"contentType": "application/vnd.microsoft.card.adaptive", "content": card},
	}}
}

func (s *Senders) chat(u *url.URL, hosts []string, path string, body func(Message) any) (Sender, error) {
	known := slices.ContainsFunc(hosts, func(h string) bool {
		if h[0] != '.' {
			return u.Host == h
		}
		return strings.HasSuffix(u.Host, h) && u.Host[0] != '.'
	})
	if !known {
		return nil, errors.New("the host is not this service's: " + strings.Join(hosts, ", "))
	}
	if !strings.HasPrefix(u.Path, path) || len(u.Path) == len(path) || u.User != nil {
		return nil, errors.New("this is not the address that the service gave for its webhook: the path begins with " + path)
	}
	to, err := s.target(u)
	if err != nil {
		return nil, err
	}
	return &chat{to: to, body: body}, nil
}

const telegramHost = "https://api.telegram.org"

// telegram takes telegram://<number>:<token>@<chat>, where the chat is a number
// or the name of a public channel.
func (s *Senders) telegram(u *url.URL) (Sender, error) {
	token, ok := u.User.Password()
	id := u.User.Username()
	if !ok || id == "" || strings.Trim(id, "0123456789") != "" || token == "" || strings.Trim(token, tokenLetters) != "" {
		return nil, errors.New("the token of a Telegram bot is <number>:<letters>: write telegram://BOT:TOKEN@CHAT")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Port() != "" {
		return nil, errors.New("behind the chat nothing follows: write telegram://BOT:TOKEN@CHAT")
	}
	room := u.Hostname()
	if strings.Trim(strings.TrimPrefix(room, "-"), "0123456789") != "" {
		room = "@" + room
	}
	to := &target{senders: s, address: hub.NewSecret(telegramHost + "/bot" + id + ":" + token + "/sendMessage")}
	return &chat{to: to, wait: telegramWait, body: func(m Message) any {
		return map[string]any{
			"chat_id": room, "text": m.Text.RenderWithin(message.HTML, telegramLimit), "parse_mode": "HTML",
			"link_preview_options": map[string]any{"is_disabled": true},
		}
	}}, nil
}

const tokenLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// telegramWait reads the seconds to wait, which Telegram writes into the body.
func telegramWait(reply []byte) time.Duration {
	var r struct {
		Parameters struct {
			RetryAfter float64 `json:"retry_after"`
		} `json:"parameters"`
	}
	if json.Unmarshal(reply, &r) != nil {
		return 0
	}
	return bounded(r.Parameters.RetryAfter)
}
