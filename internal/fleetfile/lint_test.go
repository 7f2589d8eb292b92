package fleetfile

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

var lintedAt = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

// aKey is 64 hex digits, kept out of this repository's files as it should be.
var aKey = strings.Repeat("00ff4a7c", 8)

func TestLint(t *testing.T) {
	archives, err := filepath.Glob("testdata/lint/*.txtar")
	if err != nil || len(archives) < 3 {
		t.Fatal(archives, err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fsys, want := fstest.MapFS{}, ""
			for _, f := range archive.Files {
				if f.Name == "expected" {
					want = string(f.Data)
					continue
				}
				fsys[f.Name] = &fstest.MapFile{Data: bytes.ReplaceAll(f.Data, []byte("HEX"), []byte(aKey))}
			}
			problems, err := Lint(fsys, lintedAt)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, p := range problems {
				if p.Rule == "secret" {
					if p.Hint != secretHint || p.Warning {
						t.Errorf("%+v", p)
					}
					p.Hint = ""
				}
				fmt.Fprintf(&got, "[%s] %s\n", p.Rule, p)
			}
			if got.String() != want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

// TestTokens: each kind of token is found by itself, and never shown. They are
// put together here, so that no scanner finds one in this file.
func TestTokens(t *testing.T) {
	random := strings.Repeat("aB3dE5fG7h", 4)
	upper := strings.ToUpper(random)
	for token, kind := range map[string]string{
		"ghp_" + random[:36]:                                            "a GitHub token",
		"gho_" + random[:36]:                                            "a GitHub token",
		"ghu_" + random[:36]:                                            "a GitHub token",
		"ghs_" + random[:36]:                                            "a GitHub token",
		"ghr_" + random[:36]:                                            "a GitHub token",
		"github_pat_" + random[:22] + "_" + random:                      "a GitHub token",
		"glpat-" + random[:20]:                                          "a GitLab token",
		"gldt-" + random[:20]:                                           "a GitLab token",
		"glrt-" + random[:20]:                                           "a GitLab token",
		"xoxb-" + "123456789012-" + random[:24]:                         "a Slack token",
		"xapp-" + "1-A1-" + random[:24]:                                 "a Slack token",
		"https://hooks.slack.com/services/T0/B0/" + random:              "a Slack webhook",
		"https://discord.com/api/webhooks/123/" + random:                "a Discord webhook",
		"https://x.webhook.office.com/webhookb2/" + random:              "a Teams webhook",
		"https://x.logic.azure.com/a?sp=1&sig=" + random:                "a Teams webhook",
		"telegram://" + "1234567:" + random[:35] + "@ops":               "a Telegram bot's token",
		"webhook+https://a.example/#" + "whsec_" + random:               "a webhook's secret",
		"AKIA" + upper[:16]:                                             "an AWS access key",
		"ASIA" + upper[:16]:                                             "an AWS access key",
		"sk_" + "live_" + random[:24]:                                   "a Stripe key",
		"rk_" + "live_" + random[:24]:                                   "a Stripe key",
		"AIza" + random[:35]:                                            "a Google API key",
		"PVEAPIToken=root@pam!hub=01234567-89ab-cdef-0123-456789abcdef": "a Proxmox API token",
		"eyJ" + random[:12] + ".eyJ" + random[:12] + "." + random:       "a JSON Web Token",
		"Bearer " + random:                                              "a bearer token",
		"authorization: bearer " + random[:20]:                          "a bearer token",
		"AGE-SECRET-KEY-1" + upper:                                      "an age identity",
		"AGE-SECRET-KEY-PQ-1" + upper:                                   "an age identity",
		"-----BEGIN PRIVATE KEY-----":                                   "a private key (PEM)",
		"-----BEGIN ENCRYPTED PRIVATE KEY-----":                         "a private key (PEM)",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\\nabc":                   "a private key (PEM)",
		aKey:                      "64 hex digits, as a key has",
		strings.ToUpper(aKey):     "64 hex digits, as a key has",
		"key-of-" + aKey + ".":    "64 hex digits, as a key has",
		"sha256-hmac key " + aKey: "64 hex digits, as a key has",
	} {
		for _, line := range []string{token, "  token: '" + token + "'", "{a: \"" + token + "\", b: c}"} {
			problems := findSecrets("f", []byte("first: line\n"+line+"\nlast: line\n"))
			if len(problems) != 1 || problems[0].Message != "a secret in the clear: "+kind || problems[0].Line != 2 {
				t.Errorf("%.12s…: %v", token, problems)
				continue
			}
			if text := problems[0].String(); strings.Contains(text, random[:8]) || strings.Contains(text, aKey[:8]) {
				t.Errorf("shown: %s", text)
			}
			if excused := findSecrets("f", []byte(line+" # validate: not-a-secret\n")); len(excused) > 0 {
				t.Errorf("excused: %v", excused)
			}
		}
	}
}

func TestNoTokens(t *testing.T) {
	for _, text := range []string{
		"", "ghp_short", "the GitHub token begins with ghp_", "glpat-", "xoxb", "AKIA", "xAKIA" + strings.Repeat("A", 16),
		"AKIA" + strings.Repeat("A", 30), "webhook+https://example.com/hook#whsec_…", "/api/webhooks/…", "telegram://BOT:TOKEN@CHAT", "?sig=x",
		"sk_test_" + strings.Repeat("a1", 20), "Bearer <token>", "Bearer $TOKEN",
		"the bearer of this letter, unfortunately", "bearer authentication-for-everybody", "eyJhbGciOi",
		"-----BEGIN AGE ENCRYPTED FILE-----", "-----BEGIN PUBLIC KEY-----", "AGE-SECRET-KEY-1…", "age1" + strings.Repeat("q", 58),
		"sha256:" + aKey, "SHA256: " + aKey, "sha256sum=" + aKey, "sha-256: '" + aKey + "'", "fingerprint: " + aKey,
		`"imageDigest": "` + aKey + `"`, "keyFingerprint: " + aKey, "password_hash: " + aKey, "checksum = \"" + aKey + "\"",
		"digest:\n  " + aKey, "sha256:\n- " + aKey + "\n\n- " + aKey, "images: [app@sha256:" + aKey + "]",
		aKey + "0", aKey[:63], aKey + aKey, "z" + aKey, aKey + "z", strings.Repeat(aKey, 1000),
	} {
		if problems := findSecrets("f", []byte(text)); len(problems) > 0 {
			t.Errorf("%.60q: %v", text, problems)
		}
	}
}

// TestLintLooksEverywhere: a secret is found at any offset and in any kind of
// file, but for what is not text.
func TestLintLooksEverywhere(t *testing.T) {
	for offset := range 200 {
		text := strings.Repeat(".", offset) + aKey + "\n"
		if problems := findSecrets("f", []byte(text)); len(problems) != 1 || problems[0].Column != offset+1 {
			t.Fatal(offset, problems)
		}
	}
	fsys := fstest.MapFS{
		"picture.png":   {Data: []byte("\x89PNG\x00\n" + aKey)},
		".git/config":   {Data: []byte(aKey)},
		"link":          {Data: []byte(aKey), Mode: fs.ModeSymlink},
		"large.log":     {Data: append(bytes.Repeat([]byte("line\n"), maxLintBytes/5+1), aKey...)},
		"a/.hidden/key": {Data: []byte("\ufeff" + aKey + "\r\n")},
	}
	problems, err := Lint(fsys, lintedAt)
	if err != nil || len(problems) != 2 || problems[0].File != "a/.hidden/key" || problems[0].Column != 2 ||
		problems[1].File != "large.log" || problems[1].Rule != "not-looked-at" || !problems[1].Warning {
		t.Error(problems, err)
	}
}

func TestLintUnreadable(t *testing.T) {
	if _, err := Lint(os.DirFS(filepath.Join(t.TempDir(), "none")), lintedAt); err == nil {
		t.Error("no error")
	}
}

// TestTheProjectsOwnFleetIsClean keeps the example as a reviewer wants it.
func TestTheProjectsOwnFleetIsClean(t *testing.T) {
	problems, err := Lint(os.DirFS("../../fleet"), lintedAt)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// TestSealsOfAnotherKind: sealedTo says what recipients.txt says, and the seal
// itself was made for recipients of another kind, or for fewer.
func TestSealsOfAnotherKind(t *testing.T) {
	c := newCast(t)
	hybrid := cast{}
	for _, name := range []string{"hub", "offline"} {
		id, err := seal.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		hybrid[name] = id
	}
	_, honest, _ := strings.Cut(c.seal(t, "host/acme-00000001", "k1", nil, hub.Secret{}), "sealed: |")
	sealedTo, _, _ := strings.Cut(c.seal(t, "host/acme-00000001", "k1", nil, hub.Secret{}), "sealed: |")
	_, other, _ := strings.Cut(hybrid.seal(t, "host/acme-00000001", "k1", nil, hub.Secret{}), "sealed: |")
	_, fewer, _ := strings.Cut(c.seal(t, "host/acme-00000001", "k1", []string{"to", "hub"}, hub.Secret{}), "sealed: |")
	for sealed, want := range map[string]string{
		honest: "",
		other:  "customers/acme/hosts/acme-00000001.yaml:8:15: key k1 is sealed to recipients of the kind mlkem768x25519, but recipients.txt names X25519 (seal it again, to the recipients of recipients.txt)\n",
		fewer:  "customers/acme/hosts/acme-00000001.yaml:7:17: key k1 is sealed to 1 recipients, but sealedTo names 2\n",
	} {
		fsys := c.folder(t, new(txtar.Archive))
		fsys[HostPath("acme", "acme-00000001")] = &fstest.MapFile{Data: []byte("apiVersion: hub.felhom.eu/v1\nkind: Host\n" +
			"metadata: {name: acme-00000001, customer: acme}\nspec:\n  keys:\n    - id: k1\n" + sealedTo + "sealed: |" + sealed)}
		_, problems, err := Load(fsys, nil, Options{})
		if got := c.text(problems); err != nil || got != want {
			t.Errorf("%v got\n%s\nwant\n%s", err, got, want)
		}
		for _, p := range problems {
			if p.Rule != "seal-recipients" {
				t.Errorf("%+v", p)
			}
		}
	}
}

// TestEveryRuleIsKnown: what the archives provoke carries rules that are listed.
func TestEveryRuleIsKnown(t *testing.T) {
	known := map[string]bool{}
	for i, rule := range Rules() {
		if i > 0 && Rules()[i-1].ID >= rule.ID || rule.Text == "" {
			t.Errorf("%q is out of order, or says nothing", rule.ID)
		}
		known[rule.ID] = true
	}
	c := newCast(t)
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, opener := range []Opener{nil, c.opener()} {
			_, problems, err := Load(c.folder(t, archive), opener, Options{})
			if err != nil {
				t.Fatal(err)
			}
			NameRules(problems)
			for _, p := range problems {
				if !known[p.Rule] {
					t.Errorf("rule %q is not listed: %s", p.Rule, p)
				}
			}
		}
	}
}

// BenchmarkLint looks at 2,000 hosts as BenchmarkLoad reads them.
func BenchmarkLint(b *testing.B) {
	c := newCast(b)
	fsys := c.folder(b, new(txtar.Archive))
	for i := range 2000 {
		id := fmt.Sprintf("acme-1%07d", i)
		text := "# yaml-language-server: $schema=../../../schema/host.json\nkind: Host\nmetadata: {name: " + id + ", customer: acme}\nspec:\n  keys:\n    - id: k1\n      SEAL host/" + id + " k1\n"
		fsys[HostPath("acme", id)] = &fstest.MapFile{Data: c.expand(b, fsys, text, hub.Secret{})}
	}
	for b.Loop() {
		problems, err := Lint(fsys, lintedAt)
		if err != nil || slices.ContainsFunc(problems, func(p hub.Problem) bool { return p.Rule != "schema-line" }) {
			b.Fatal(problems, err)
		}
	}
}
