package seal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"felhom.eu/hub/internal/hub"
)

func identity(t testing.TB, generate func() (Identity, error)) Identity {
	t.Helper()
	id, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func payload() Payload {
	return Payload{Owner: hub.HostOwner("acme-5f2c9a1e"), KeyID: "k1", Key: hub.NewKey()}
}

func mustSeal(t testing.TB, p Payload, to ...Recipient) string {
	t.Helper()
	text, _, err := Seal(p, to)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSealOpens(t *testing.T) {
	for name, generate := range map[string]func() (Identity, error){
		"X25519": GenerateIdentity, "hybrid": GenerateHybridIdentity,
	} {
		t.Run(name, func(t *testing.T) {
			online, offline := identity(t, generate), identity(t, generate)
			p := payload()
			text, sealedTo, err := Seal(p, []Recipient{online.Recipient(), offline.Recipient()})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text, p.Key.Reveal()) {
				t.Fatal("the key stands in the clear")
			}
			want := []string{online.Recipient().Fingerprint(), offline.Recipient().Fingerprint()}
			if strings.Join(sealedTo, " ") != strings.Join(want, " ") {
				t.Errorf("sealed to %v, want %v", sealedTo, want)
			}
			kinds, err := Recipients(text)
			if err != nil || len(kinds) != 2 || kinds[0] != online.Recipient().Kind() {
				t.Errorf("recipients %v, %v", kinds, err)
			}
			stranger := identity(t, generate)
			for _, ids := range [][]Identity{{online}, {offline}, {stranger, offline}} {
				if got, err := Open(text, ids); err != nil || got != p {
					t.Errorf("%v: %v", ids, err)
				}
			}
			for _, ids := range [][]Identity{nil, {stranger}} {
				if _, err := Open(text, ids); !errors.Is(err, ErrNoIdentity) {
					t.Errorf("%v: %v", ids, err)
				}
			}
		})
	}
}

func TestFingerprintIsOfThePublicString(t *testing.T) {
	r, problems := ParseRecipients("r", []byte("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	// printf %s age1ql3… | sha256sum
	if got := r[0].Fingerprint(); got != "cf7e568231315068" {
		t.Error(got)
	}
}

func TestSealIsBoundToItsOwner(t *testing.T) {
	id := identity(t, GenerateIdentity)
	p := payload()
	text := mustSeal(t, p, id.Recipient())
	o := NewOpener([]Identity{id})
	want, _ := hub.DigestKey(p.Key.Reveal())
	for range 2 { // the second time from the cache
		if got, err := o.Open(p.Owner, "k1", text); err != nil || got != want {
			t.Fatal(got, err)
		}
		for owner, keyID := range map[hub.Owner]string{
			hub.HostOwner("globex-00000001"):     "k1",
			hub.CustomerOwner("acme-5f2c9a1e"):   "k1",
			hub.FleetOwner():                     "k1",
			p.Owner:                              "k2",
			hub.HostOwner("acme-5f2c9a1e\nk1\n"): "k1",
		} {
			_, err := o.Open(owner, keyID, text)
			var wrong *OwnerError
			if !errors.As(err, &wrong) || wrong.Owner != p.Owner || wrong.Wanted != owner {
				t.Errorf("%s %s: %v", owner, keyID, err)
			}
		}
	}
	_, err := o.Open(hub.HostOwner("globex-1"), "k1", text)
	if err.Error() != "the seal was made for key k1 of host/acme-5f2c9a1e, not for key k1 of host/globex-1" {
		t.Error(err)
	}
}

// TestCacheNeedsNoIdentity shows that a known seal is not opened again, and
// that a refused one is never remembered.
func TestCacheNeedsNoIdentity(t *testing.T) {
	id := identity(t, GenerateIdentity)
	p := payload()
	text := mustSeal(t, p, id.Recipient())
	o := NewOpener([]Identity{identity(t, GenerateIdentity)})
	for range 2 {
		if _, err := o.Open(p.Owner, p.KeyID, text); !errors.Is(err, ErrNoIdentity) {
			t.Fatal(err)
		}
	}
	o.identities = []Identity{id}
	if _, err := o.Open(p.Owner, p.KeyID, text); err != nil {
		t.Fatal(err)
	}
	o.identities = nil
	if _, err := o.Open(p.Owner, p.KeyID, text); err != nil {
		t.Error("opened again:", err)
	}
}

func TestOpenerIsSafeForSeveral(t *testing.T) {
	id := identity(t, GenerateIdentity)
	p := payload()
	text := mustSeal(t, p, id.Recipient())
	o := NewOpener([]Identity{id})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := o.Open(p.Owner, p.KeyID, text); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// encrypt seals any text, as somebody with the age command could.
func encrypt(t testing.TB, text string, to ...age.Recipient) string {
	t.Helper()
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, to...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte(text))
	if err := errors.Join(err, w.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPayloadIsStrict(t *testing.T) {
	id := identity(t, GenerateIdentity)
	key := strings.Repeat("0f", 32)
	good := `{"v":1,"owner":"host/a","id":"k1","key":"` + key + `"}`
	for text, fine := range map[string]bool{
		good:                 true,
		good + "\n":          true,
		"":                   false,
		"null":               false,
		key:                  false,
		good + good:          false,
		good[:len(good)-1]:   false,
		"[" + good + "]":     false,
		" {" + good[1:]:      true,
		"{ " + good[1:]:      false,
		`{"v":1,` + good[1:]: false,
		strings.Replace(good, `"v":1`, `"v":2`, 1):                      false,
		strings.Replace(good, `"v":1`, `"v":1.0`, 1):                    false,
		strings.Replace(good, `"owner"`, `"Owner"`, 1):                  false,
		strings.Replace(good, `"owner"`, `"owner":"host/b","owner"`, 1): false,
		strings.Replace(good, `host/a`, `host/A`, 1):                    false,
		strings.Replace(good, `host/a`, `hosts/a`, 1):                   false,
		strings.Replace(good, `host/a`, `fleet/a`, 1):                   false,
		strings.Replace(good, `host/a`, `fleet`, 1):                     true,
		strings.Replace(good, `k1`, `K1`, 1):                            false,
		strings.Replace(good, `k1`, `\u006b1`, 1):                       false,
		strings.Replace(good, `0f`, `0F`, 1):                            false,
		strings.Replace(good, `0f`, ``, 1):                              false,
		strings.Replace(good, `}`, `,"x":1}`, 1):                        false,
		good + strings.Repeat(" ", maxPayload):                          false,
	} {
		_, err := Open(encrypt(t, text, id.Recipient().age), []Identity{id})
		if fine != (err == nil) || err != nil && !errors.Is(err, ErrPayload) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDamage(t *testing.T) {
	id := identity(t, GenerateIdentity)
	text := mustSeal(t, payload(), id.Recipient())
	lines := strings.SplitAfter(text, "\n")
	middle := len(lines) / 2
	secret := strings.Repeat("ab", 32)
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"empty":         {"", ErrNotSealed},
		"a bare key":    {secret, ErrNotSealed},
		"other armor":   {"-----BEGIN PGP MESSAGE-----\nxx\n-----END PGP MESSAGE-----\n", ErrNotSealed},
		"cut":           {strings.Join(lines[:middle], ""), ErrDamaged},
		"a line less":   {strings.Join(append(append([]string{}, lines[:middle]...), lines[middle+1:]...), ""), ErrDamaged},
		"more after it": {text + secret, ErrDamaged},
		"header only":   {lines[0] + lines[len(lines)-2], ErrDamaged},
		"too long":      {lines[0] + strings.Repeat(lines[1], 2000), ErrNotSealed},
	} {
		_, err := Open(test.text, []Identity{id})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows what stood there", name)
		}
	}
	// Whatever letter is changed, nothing opens and nothing panics.
	for i := len(lines[0]); i < len(text)-len(lines[len(lines)-2]); i += 7 {
		changed := []byte(text)
		if changed[i] == '\n' {
			continue
		}
		changed[i] ^= 1
		if p, err := Open(string(changed), []Identity{id}); err == nil {
			t.Errorf("letter %d changed: opened as %v", i, p)
		}
	}
}

func TestOtherRecipientsAreRefused(t *testing.T) {
	scrypt, err := age.NewScryptRecipient("passphrase")
	if err != nil {
		t.Fatal(err)
	}
	scrypt.SetWorkFactor(1)
	text := encrypt(t, "x", scrypt)
	if _, err := Recipients(text); !errors.Is(err, ErrNotSealed) || !strings.Contains(err.Error(), `"scrypt"`) {
		t.Error(err)
	}
}

func TestSealRefuses(t *testing.T) {
	x, h := identity(t, GenerateIdentity).Recipient(), identity(t, GenerateHybridIdentity).Recipient()
	good := payload()
	badKey, badID := good, good
	badKey.Key = hub.NewSecret("short")
	badID.KeyID = "K 1"
	for name, test := range map[string]struct {
		p  Payload
		to []Recipient
	}{
		"nobody": {good, nil}, "mixed": {good, []Recipient{x, h}}, "no key": {badKey, []Recipient{x}}, "no id": {badID, []Recipient{x}},
	} {
		if _, _, err := Seal(test.p, test.to); err == nil || strings.Contains(err.Error(), "short") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRecipients(t *testing.T) {
	x1, x2 := identity(t, GenerateIdentity), identity(t, GenerateIdentity)
	h := identity(t, GenerateHybridIdentity)
	text := "# the hub\n" + x1.Recipient().String() + "\n\n  " + x2.Recipient().String() + "  \n"
	got, problems := ParseRecipients("recipients.txt", []byte(text))
	if len(problems) > 0 || len(got) != 2 || got[1].String() != x2.Recipient().String() {
		t.Fatal(got, problems)
	}
	for name, test := range map[string]struct{ text, want string }{
		"nothing": {"# none\n", "recipients.txt: names no recipient (make an identity with: hub key generate, and add its public key)"},
		"twice": {text + x1.Recipient().String() + "\n",
			"recipients.txt:5:1: this recipient stands twice"},
		"mixed": {text + h.Recipient().String() + "\n",
			"recipients.txt:5:1: X25519 and hybrid recipients cannot be mixed: age would not seal to them (replace all of them by recipients of one kind, then: hub fleet reseal --identity FILE)"},
		"secret": {x1.secret.Reveal() + "\n",
			"recipients.txt:1:1: a secret identity stands here: it is known to whoever can read this repository (make a new one, and reseal everything that was sealed to this one)"},
		"plugin": {"age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t\n",
			"recipients.txt:1:1: a recipient of an age plugin: plugins are never run (make an age identity with: hub key generate)"},
		"ssh":     {"ssh-ed25519 AAAA me\n", "recipients.txt:1:1: SSH recipients are not used here (make an age identity with: hub key generate)"},
		"damaged": {text[:40] + "\n" + strings.Replace(h.Recipient().String(), "q", "p", 3) + "\nhello\n", ""},
	} {
		_, problems := ParseRecipients("recipients.txt", []byte(test.text))
		if name == "damaged" {
			if len(problems) != 3 {
				t.Errorf("damaged: %v", problems)
			}
			continue
		}
		if len(problems) != 1 || problems[0].String() != test.want {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

func TestIdentityFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := identity(t, GenerateIdentity), identity(t, GenerateHybridIdentity)
	fileA, fileB := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for file, id := range map[string]Identity{fileA: a, fileB: b} {
		if err := WriteIdentity(file, id); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := ReadIdentities(fileB, fileA)
	if err != nil || len(ids) != 2 || ids[0].String() != b.String() || ids[1].String() != a.String() {
		t.Fatal(ids, err)
	}
	if info, _ := os.Stat(fileA); info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	if err := WriteIdentity(fileA, b); !errors.Is(err, fs.ErrExist) {
		t.Error("overwrote an identity:", err)
	}
	if err := os.Chmod(fileA, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIdentities(fileA); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
	if _, err := ReadIdentities(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "hub key generate") {
		t.Error(err)
	}
}

func TestParseIdentitiesNeverShowsThem(t *testing.T) {
	secret := strings.TrimSpace(identity(t, GenerateIdentity).secret.Reveal())
	for text, want := range map[string]string{
		"":                               "f: no identity in it; make one with: hub key generate",
		"# x\n" + secret[:40]:            "f:2: a damaged identity",
		"AGE-PLUGIN-YUBIKEY-1Q":          "f:1: an identity of an age plugin: plugins are never run",
		"age1abc":                        "f:1: a recipient, not an identity: this is the public half",
		"-----BEGIN OPENSSH PRIVATE KEY": "f:1: not an age identity (AGE-SECRET-KEY-1… or AGE-SECRET-KEY-PQ-1…)",
	} {
		if _, err := ParseIdentities("f", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.12s…: %v", text, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	id := identity(b, GenerateIdentity)
	text := mustSeal(b, payload(), identity(b, GenerateIdentity).Recipient(), id.Recipient())
	for b.Loop() {
		if _, err := Open(text, []Identity{id}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	id := identity(f, GenerateIdentity)
	text := mustSeal(f, payload(), id.Recipient())
	f.Add(text)
	f.Add(encrypt(f, "{}", id.Recipient().age))
	f.Add(mustSeal(f, payload(), identity(f, GenerateHybridIdentity).Recipient()))
	f.Add(mustSeal(f, payload(), identity(f, GenerateIdentity).Recipient(), id.Recipient()))
	f.Add(strings.ReplaceAll(text, "\n", "\r\n"))
	f.Add(text[:len(text)/2])
	f.Add(text + text)
	f.Add("-----BEGIN AGE ENCRYPTED FILE-----\n-----END AGE ENCRYPTED FILE-----\n")
	opener := NewOpener([]Identity{id})
	f.Fuzz(func(t *testing.T, armored string) {
		_, formErr := Recipients(armored)
		p, err := Open(armored, []Identity{id})
		if want, wantErr := openWithAge(armored, id); (err == nil) != (wantErr == nil && formErr == nil) || err == nil && p != want {
			t.Errorf("opened %+v, %v; with age alone %+v, %v", p, err, want, wantErr)
		}
		if err == nil && (formErr != nil || !hub.ValidKeyID(p.KeyID)) {
			t.Errorf("opened %+v: %v", p, formErr)
		}
		// Opened for one owner, it opens for no other, the first time and the next.
		for range 2 {
			if _, err := opener.Open(hub.HostOwner("somebody-else"), "k1", armored); err == nil {
				t.Error("opened for another owner")
			}
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add(payload().encode())
	key := strings.Repeat("ab", 32)
	for _, text := range []string{
		`{"v":1,"V":1}`, `{}`, `null`, `[]`, ``, ` {"v":1,"owner":"fleet","id":"k1","key":"` + key + `"}` + "\n",
		`{"v":2,"owner":"fleet","id":"k1","key":"` + key + `"}`, `{"v":1,"owner":"fleet","owner":"host/a","id":"k1","key":"` + key + `"}`,
		`{"v":1,"owner":"host/..","id":"k1","key":"` + key + `"}`, `{"v":1,"owner":"host\u002fa","id":"k1","key":"` + key + `"}`,
		`{"key":"` + key + `","id":"k1","owner":"customer/a","v":1}`, `{"v":1e0,"owner":"fleet","id":"k1","key":"` + key + `"}{}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := decode(text)
		if err == nil && !bytes.Equal(p.encode(), bytes.TrimSpace(text)) {
			t.Errorf("%q was accepted as %q", text, p.encode())
		}
	})
}

// openWithAge opens a seal with nothing of unwrap.go.
func openWithAge(armored string, id Identity) (Payload, error) {
	native, err := age.ParseX25519Identity(strings.TrimSpace(id.secret.Reveal()))
	if err != nil {
		return Payload{}, err
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(armored)), native)
	if err != nil {
		return Payload{}, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return Payload{}, err
	}
	return decode(text)
}

// TestUnwrapIsAges damages every part of a seal: unwrap.go refuses what age
// refuses, and takes what it takes.
func TestUnwrapIsAges(t *testing.T) {
	id := identity(t, GenerateIdentity)
	for range 20 { // identities with all kinds of digits
		id := identity(t, GenerateIdentity)
		p := payload()
		if got, err := Open(mustSeal(t, p, id.Recipient()), []Identity{id}); err != nil || got != p {
			t.Fatal(err)
		}
	}
	p := payload()
	armored := mustSeal(t, p, identity(t, GenerateIdentity).Recipient(), id.Recipient())
	file, err := io.ReadAll(armor.NewReader(strings.NewReader(armored)))
	if err != nil {
		t.Fatal(err)
	}
	rearm := func(file []byte) string {
		var out bytes.Buffer
		w := armor.NewWriter(&out)
		_, err := w.Write(file)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for i := range file {
		for name, damaged := range map[string][]byte{
			"flipped": append(append(bytes.Clone(file[:i]), file[i]^1), file[i+1:]...),
			"cut":     file[:i],
			"without": append(bytes.Clone(file[:i]), file[i+1:]...),
			"twice":   append(append(bytes.Clone(file[:i+1]), file[i]), file[i+1:]...),
		} {
			text := rearm(damaged)
			got, err := Open(text, []Identity{id})
			want, wantErr := openWithAge(text, id)
			if (err == nil) != (wantErr == nil) || err == nil && got != want {
				t.Errorf("byte %d %s: %v; age alone: %v", i, name, err, wantErr)
			}
		}
	}
}
