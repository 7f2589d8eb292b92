package fleetfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/hub"
)

// secretURL is one whose every part is a secret; secretWord stands in it.
const (
	secretURL  = "slack+https://hooks.slack.com/services/T00000000/B00000000/" + secretWord
	secretWord = "dGhlc2VjcmV0d29yZA"
)

const toldFleet = `
-- fleet.yaml --
apiVersion: hub.felhom.eu/v1
kind: Fleet
metadata: {name: felhom}
spec:
  keys: []
  controllerEvents: [soup_ready]
  language: de
  timeZone: Europe/Vienna
  outbound: {allow: [10.1.0.0/16, "fd00:1::/64"]}
  notify:
    - {name: alerts, url: "alertmanager+http://10.1.0.9:9093", minSeverity: info, labels: {team: ops}}
-- customers/acme/customer.yaml --
apiVersion: hub.felhom.eu/v1
kind: Customer
metadata: {name: acme}
spec:
  keys: []
  language: de
  timeZone: Europe/Berlin
  notify:
    - name: chat
      sealedUrl:
        SEALURL customer/acme chat ` + secretURL + `
      events: [host_down, soup_ready]
    - {name: alerts, url: "alertmanager+https://alerts.example.com", minSeverity: critical}
`

func TestLoadChannels(t *testing.T) {
	c := newCast(t)
	fsys := c.folder(t, txtar.Parse([]byte(toldFleet)))
	for name, opener := range map[string]Opener{"opened": c.opener(), "closed": nil} {
		t.Run(name, func(t *testing.T) {
			fleet, problems, err := Load(fsys, opener, Options{})
			if err != nil || len(problems) > 0 {
				t.Fatal(problems, err)
			}
			if got, want := fleet.Outbound(), []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")}; !slices.Equal(got, want) {
				t.Errorf("outbound %v", got)
			}
			if language, zone := fleet.Locale(hub.FleetOwner()); language != "de" || zone != "Europe/Vienna" {
				t.Errorf("the operators' language %q, time zone %q", language, zone)
			}
			acme, _ := fleet.Customer("acme")
			if acme.Language != "de" || acme.TimeZone != "Europe/Berlin" {
				t.Errorf("language %q, time zone %q", acme.Language, acme.TimeZone)
			}
			list := fleet.ChannelsFor("acme")
			var said []string
			for _, ch := range list {
				said = append(said, fmt.Sprint(ch.ID(), " ", ch.Events, " ", ch.MinSeverity, " ", ch.Labels))
			}
			if want := []string{"customer/acme/chat [host_down soup_ready] warning map[]", "customer/acme/alerts [] critical map[]", "fleet/alerts [] info map[team:ops]"}; !slices.Equal(said, want) {
				t.Fatalf("channels %q, want %q", said, want)
			}
			if want := (opener != nil); (list[0].URL.Reveal() == secretURL) != want || list[0].URL.Empty() == want {
				t.Error("the sealed URL is not as it should be")
			}
			if got := list[2].URL.Reveal(); got != "alertmanager+http://10.1.0.9:9093" {
				t.Errorf("URL %q", got)
			}
			text, _ := json.Marshal(list)
			if said := fmt.Sprintf("%v %+v %#v %s", list[0], *list[0], *list[0], text); strings.Contains(said, secretWord) {
				t.Error("a printed channel gives its URL away")
			}
		})
	}
}

// TestOutboundIsJudgedWithEveryCommit: a customer's file that did not change is
// judged by the fleet's new networks.
func TestOutboundIsJudgedWithEveryCommit(t *testing.T) {
	c := newCast(t)
	fsys := c.folder(t, txtar.Parse([]byte(strings.Replace(toldFleet, secretURL, "alertmanager+https://10.1.2.3/"+secretWord, 1))))
	for _, opener := range []Opener{c.opener(), nil} {
		loader := NewLoader(opener, hub.Thresholds{})
		changed := maps.Clone(fsys)
		for networks, want := range map[string]bool{"[10.1.0.0/16]": true, "[10.1.0.0/24]": opener == nil, "[10.1.0.9/32, 10.1.2.3/32]": true} {
			file := *fsys[FleetPath]
			file.Data = bytes.Replace(file.Data, []byte(`[10.1.0.0/16, "fd00:1::/64"]`), []byte(networks), 1)
			changed[FleetPath] = &file
			loaded, err := loader.Load(changed, Request{})
			if err != nil || (loaded.Fleet != nil) != want {
				t.Errorf("%s: %v %v", networks, loaded.Problems, err)
			}
			if text := fmt.Sprint(loaded.Problems); strings.Contains(text, secretWord) || !want && !strings.Contains(text, "channel chat leads to an address inside") {
				t.Error(text)
			}
		}
	}
}

// TestSecretsInTheClear: what may stand in url, and what must be sealed.
func TestSecretsInTheClear(t *testing.T) {
	for text, secret := range map[string]bool{
		"alertmanager+http://10.1.0.9:9093":                                                false,
		"alertmanager+https://alerts.example.com/team":                                     false,
		"smtp://mail.example.com?from=hub@example.com&to=ops@example.com":                  false,
		"smtps://mail.example.com?from=hub%2Bx@example.com&to=a@example.com,b@example.com": false,
		"alertmanager+https://alerts.example.com?token=x":                                  true,
		"alertmanager+https://ops@alerts.example.com":                                      true,
		"alertmanager+https://alerts.example.com#x":                                        true,
		"smtp://hub:x@mail.example.com?from=hub@example.com&to=ops@example.com":            true,
		"smtp://mail.example.com?from=hub@example.com&to=ops@example.com#x":                true,
		"webhook+https://example.com/hook":                                                 true,
		"discord+https://discord.com/api/webhooks/1/x":                                     true,
		"teams+https://x.logic.azure.com/x":                                                true,
		" telegram://1:x@ops":                                                              true,
		secretURL:                                                                          true,
		"https://user:x@example.com":                                                       true,
		"smtp://hub:x/y@mail.example.com:z":                                                true,
	} {
		if holdsSecret(text) != secret {
			t.Errorf("%s holds a secret: %v", text, !secret)
		}
	}
}
