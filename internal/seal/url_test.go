package seal

import (
	"errors"
	"strings"
	"testing"

	"filippo.io/age/armor"

	"felhom.eu/hub/internal/hub"
)

func urlPayload() URLPayload {
	return URLPayload{Owner: hub.CustomerOwner("acme"), Channel: "ops-chat",
		URL: hub.NewSecret("smtp://u:p@mail.example.com?from=a@example.com&to=b@example.com")}
}

func TestSealedURLOpensInItsPlaceOnly(t *testing.T) {
	for name, generate := range map[string]func() (Identity, error){"X25519": GenerateIdentity, "hybrid": GenerateHybridIdentity} {
		t.Run(name, func(t *testing.T) {
			id, p := identity(t, generate), urlPayload()
			text, sealedTo, err := SealURL(p, []Recipient{id.Recipient()})
			if err != nil || !strings.HasPrefix(text, armor.Header) || len(sealedTo) != 1 || sealedTo[0] != id.Recipient().Fingerprint() {
				t.Fatal(sealedTo, err)
			}
			o := NewOpener([]Identity{id})
			if url, err := o.OpenURL(p.Owner, p.Channel, text); err != nil || url != p.URL {
				t.Error(err)
			}
			var elsewhere *ChannelError
			for _, place := range []URLPayload{{Owner: hub.FleetOwner(), Channel: p.Channel}, {Owner: hub.CustomerOwner("beta"), Channel: p.Channel}, {Owner: p.Owner, Channel: "other"}} {
				if url, err := o.OpenURL(place.Owner, place.Channel, text); !errors.As(err, &elsewhere) || !url.Empty() || strings.Contains(err.Error(), "mail.example.com") {
					t.Errorf("%v: %v", place, err)
				}
			}
			if _, err := OpenURL(p.Owner, p.Channel, text, []Identity{identity(t, generate)}); !errors.Is(err, ErrNoIdentity) {
				t.Error(err)
			}
			if o.Fresh() != 0 || len(o.opened) != 0 {
				t.Error("a URL is remembered")
			}
		})
	}
}

// TestKeysAndURLsAreNotMixed: neither seal opens as the other.
func TestKeysAndURLsAreNotMixed(t *testing.T) {
	id := identity(t, GenerateIdentity)
	key := Payload{Owner: hub.CustomerOwner("acme"), KeyID: "ops-chat", Key: hub.NewKey()}
	if _, err := OpenURL(key.Owner, key.KeyID, mustSeal(t, key, id.Recipient()), []Identity{id}); !errors.Is(err, ErrURLPayload) {
		t.Error(err)
	}
	text, _, err := SealURL(urlPayload(), []Recipient{id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAs(hub.CustomerOwner("acme"), "ops-chat", text, []Identity{id}); !errors.Is(err, ErrPayload) {
		t.Error(err)
	}
}

func TestDecodeURL(t *testing.T) {
	p := urlPayload()
	good := `{"v":1,"owner":"customer/acme","channel":"ops-chat","url":"` + p.URL.Reveal() + `"}`
	if string(p.encode()) != good {
		t.Fatalf("%s", p.encode())
	}
	if got, err := decodeURL([]byte(good + "\n")); err != nil || got != p {
		t.Error(err)
	}
	long := URLPayload{Owner: p.Owner, Channel: p.Channel, URL: hub.NewSecret(strings.Repeat("\x01", MaxURL))}
	if got, err := decodeURL(long.encode()); err != nil || got != long {
		t.Error(err)
	}
	for _, bad := range []string{
		``, `{}`, strings.Replace(good, `"v":1`, `"v":2`, 1), strings.Replace(good, "customer/acme", "host/acme", 1),
		strings.Replace(good, "customer/acme", "acme", 1), strings.Replace(good, "ops-chat", "Ops", 1), strings.Replace(good, "ops-chat", "", 1),
		`{"v":1,"owner":"fleet","channel":"ops-chat","url":""}`, strings.Replace(good, "&", `\u0026`, 1), good + good,
		strings.Replace(good, `,"url"`, `,"x":1,"url"`, 1), strings.Replace(good, "smtp", "\xff", 1), strings.Replace(good, "smtp", strings.Repeat("x", MaxURL), 1),
	} {
		if _, err := decodeURL([]byte(bad)); !errors.Is(err, ErrURLPayload) {
			t.Errorf("%.80q: %v", bad, err)
		}
	}
	for _, bad := range []URLPayload{{Owner: hub.HostOwner("x"), Channel: "a", URL: p.URL}, {Owner: p.Owner, Channel: "A", URL: p.URL}, {Owner: p.Owner, Channel: "a"}, {Owner: p.Owner, Channel: "a", URL: hub.NewSecret("\xff")}} {
		if _, _, err := SealURL(bad, []Recipient{identity(t, GenerateIdentity).Recipient()}); err == nil {
			t.Errorf("%+v is sealed", bad)
		}
	}
	if _, _, err := SealURL(p, nil); err == nil {
		t.Error("sealed to nobody")
	}
}
