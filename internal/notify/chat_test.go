package notify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// chatTo makes a chat sender of a good URL and points it at server.
func chatTo(t *testing.T, s *Senders, url string, server *recorder) *chat {
	t.Helper()
	c := parse(t, s, url).(*chat)
	_, rest, _ := strings.Cut(c.to.address.Reveal(), "://")
	_, path, _ := strings.Cut(rest, "/")
	c.to.address = hub.NewSecret("https://" + server.Listener.Addr().String() + "/" + path)
	return c
}

func TestChatAddresses(t *testing.T) {
	s := newSenders(t, nil)
	for url, want := range map[string]string{
		goodSlack:    "https://hooks.slack.com/services/T0/B0/" + token,
		goodDiscord:  "https://discord.com/api/webhooks/1/" + token,
		goodTeams:    "https://prod-1.westeurope.logic.azure.com/workflows/1/triggers/manual/paths/invoke?sig=" + token,
		goodTelegram: "https://api.telegram.org/bot123456:" + token + "/sendMessage",
	} {
		if got := parse(t, s, url).(*chat).to.address.Reveal(); got != want {
			t.Errorf("%s is sent to %s", url, got)
		}
	}
}

func TestChatBodies(t *testing.T) {
	for _, c := range []struct {
		name, url string
		check     func(body map[string]any) string
	}{
		{"slack", goodSlack, func(b map[string]any) string {
			text := b["text"].(string)
			if b["unfurl_links"] != false || !strings.Contains(text, "`pve &lt;01&gt; &amp; '@everyone'`") || !strings.Contains(text, "<https://wiki.example/silence|Anleitung>") {
				return text
			}
			return ""
		}},
		{"discord", goodDiscord, func(b map[string]any) string {
			text := b["content"].(string)
			if fmt.Sprint(b["allowed_mentions"]) != "map[parse:[]]" || b["flags"] != 4.0 || !strings.Contains(text, "`pve <01> & '@everyone'`") {
				return text
			}
			return ""
		}},
		{"telegram", goodTelegram, func(b map[string]any) string {
			text := b["text"].(string)
			if b["chat_id"] != "-1001234" || b["parse_mode"] != "HTML" || fmt.Sprint(b["link_preview_options"]) != "map[is_disabled:true]" ||
				!strings.Contains(text, "<code>pve &lt;01&gt; &amp; `@everyone`</code>") {
				return text
			}
			return ""
		}},
		{"teams", goodTeams, func(b map[string]any) string {
			attachment := b["attachments"].([]any)[0].(map[string]any)
			card := attachment["content"].(map[string]any)
			text, _ := json.Marshal(card)
			if b["type"] != "message" || attachment["contentType"] != "application/vnd.microsoft.card.adaptive" || card["type"] != "AdaptiveCard" || len(card["actions"].([]any)) != 2 {
				return string(text)
			}
			for _, block := range card["body"].([]any) {
				run := block.(map[string]any)["inlines"].([]any)[0].(map[string]any)
				if block.(map[string]any)["type"] != "RichTextBlock" || run["type"] != "TextRun" || run["text"] == "" {
					return string(text)
				}
			}
			return ""
		}},
	} {
		server := record(t, true, nil)
		if err := chatTo(t, newSenders(t, server.Server), c.url, server).Send(t.Context(), example(hub.HostDown)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		req, body := server.last(t)
		var got map[string]any
		if err := json.Unmarshal(body, &got); err != nil || req.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %v, %s", c.name, err, body)
		}
		if wrong := c.check(got); wrong != "" {
			t.Errorf("%s: %s", c.name, wrong)
		}
	}
}

func TestTelegramRooms(t *testing.T) {
	for room, want := range map[string]string{"42": "42", "-1001234": "-1001234", "felhom_alarms": "@felhom_alarms"} {
		c := parse(t, newSenders(t, nil), "telegram://1:"+token+"@"+room).(*chat)
		if got := c.body(example(hub.HostDown)).(map[string]any)["chat_id"]; got != want {
			t.Errorf("%s is chat %s", room, got)
		}
	}
}

func TestTelegramSaysInTheBodyHowLongToWait(t *testing.T) {
	for _, c := range []struct {
		body string
		want time.Duration
	}{
		{`{"ok":false,"error_code":429,"parameters":{"retry_after":35}}`, 35 * time.Second},
		{`{"ok":false}`, 0}, {`nonsense`, 0}, {`{"parameters":{"retry_after":1e12}}`, maxWait}, {`{"parameters":{"retry_after":-1}}`, 0},
	} {
		server := record(t, true, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(c.body))
		})
		err := chatTo(t, newSenders(t, server.Server), goodTelegram, server).Send(t.Context(), example(hub.HostDown))
		wantError(t, c.body, err, Error{Class: Busy, Status: 429, RetryAfter: c.want})
	}
}

// TestLongTextsFit: services refuse what is too long, and then nothing arrives.
func TestLongTextsFit(t *testing.T) {
	m := example(hub.MassSilence)
	long := strings.Repeat("`[x](http://x)<b>", 100)
	in := message.Input{Event: m.Event, Detail: long, Names: message.Names{Customer: long, Host: long, Hosts: map[string]string{}}, Links: m.Links}
	for i := range 100 {
		id := fmt.Sprintf("acme-%08d", i)
		in.Event.Hosts, in.Names.Hosts[id] = append(in.Event.Hosts, id), long
	}
	m.Text = message.Write(in)
	s := newSenders(t, nil)
	for url, limit := range map[string]int{goodSlack: 4000, goodDiscord: 2000, goodTelegram: 4096} {
		body := parse(t, s, url).(*chat).body(m).(map[string]any)
		for _, field := range []string{"text", "content"} {
			text, ok := body[field].(string)
			if n := utf8.RuneCountInString(text); ok && (n > limit || n < limit/4) {
				t.Errorf("%s has %d characters of %d", field, n, limit)
			}
			if strings.Count(text, "`")%2 != 0 && field != "text" || strings.Count(text, "<code>") != strings.Count(text, "</code>") {
				t.Errorf("the markup is broken:\n%s", text)
			}
		}
	}
}
