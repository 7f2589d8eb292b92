package roster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
	"felhom.eu/hub/internal/seal"
)

// hostFile is the file of a host with one sealed key.
func hostFile(t *testing.T, customer, id string, key hub.Secret, to seal.Recipient) string {
	t.Helper()
	sealed, sealedTo, err := seal.Seal(seal.Payload{Owner: hub.HostOwner(id), KeyID: "k1", Key: key}, []seal.Recipient{to})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: %s, customer: %s}
spec:
  keys:
    - id: k1
      sealedTo: [%s]
      sealed: |
        %s
`, id, customer, strings.Join(sealedTo, ", "), strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n        "))
}

// A sealed fleet goes through git and the real loader; then a host that stands
// twice leaves it in force.
func TestRealFleet(t *testing.T) {
	r := newRepository(t)
	identity, err := seal.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key := hub.NewKey()
	const kind = "apiVersion: hub.felhom.eu/v1\nkind: %s\nmetadata: {name: %s}\nspec: {}\n"
	push := func(files map[string]string) string {
		t.Helper()
		for name, content := range files {
			path := filepath.Join(r.clone, "fleet", filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		git(t, r.clone, "add", "-A")
		git(t, r.clone, "commit", "-q", "-m", "fleet")
		git(t, r.clone, "push", "-q", "origin", "main")
		return git(t, r.clone, "rev-parse", "HEAD")
	}
	first := push(map[string]string{
		"fleet.yaml":                            fmt.Sprintf(kind, "Fleet", "felhom"),
		"recipients.txt":                        identity.Recipient().String() + "\n",
		fleetfile.CustomerPath("acme"):          fmt.Sprintf(kind, "Customer", "acme"),
		fleetfile.CustomerPath("beta"):          fmt.Sprintf(kind, "Customer", "beta"),
		fleetfile.HostPath("acme", "acme-host"): hostFile(t, "acme", "acme-host", key, identity.Recipient()),
	})

	repo, err := gitsync.Open(gitsync.Options{URL: r.bare, Dir: r.mirror})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	opener := seal.NewOpener([]seal.Identity{identity})
	rost := roster.New(roster.Options{Source: repo, Path: "fleet", Interval: time.Hour, Load: fleetfile.NewLoader(opener, hub.Thresholds{}).Load})
	if err := rost.Pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := rost.Current()
	digest, err := hub.DigestKey(key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := good.Key(digest); !ok || k.Owner != hub.HostOwner("acme-host") || good.Revision() != first {
		t.Errorf("key %+v, %v at %s", k, ok, good.Revision())
	}

	// A change of channels alone comes in force, too.
	sealed, sealedTo, err := seal.SealURL(seal.URLPayload{Owner: hub.CustomerOwner("acme"), Channel: "chat", URL: hub.NewSecret("slack+https://hooks.slack.com/services/T/B/x")},
		[]seal.Recipient{identity.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	channels := push(map[string]string{
		fleetfile.CustomerPath("acme"): fmt.Sprintf("apiVersion: hub.felhom.eu/v1\nkind: Customer\nmetadata: {name: acme}\nspec:\n  notify:\n  - name: chat\n    sealedUrl:\n      sealedTo: [%s]\n      sealed: |\n        %s\n",
			sealedTo[0], strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n        ")),
	})
	if err := rost.Pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	good = rost.Current()
	if told := good.ChannelsFor("acme"); good.Revision() != channels || len(told) != 1 || told[0].URL.Reveal() != "slack+https://hooks.slack.com/services/T/B/x" {
		t.Errorf("channels %v at %s", told, good.Revision())
	}

	push(map[string]string{
		fleetfile.HostPath("beta", "acme-host"): hostFile(t, "beta", "acme-host", hub.NewKey(), identity.Recipient()),
	})
	if err := rost.Pull(t.Context()); err == nil || rost.Current() != good {
		t.Errorf("a host that stands twice: %v", err)
	}
	if p := rost.Status().Problems; len(p) == 0 || !strings.Contains(p[0].String(), "acme-host") {
		t.Errorf("problems %v", p)
	}
}
