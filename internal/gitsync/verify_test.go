package gitsync_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/gitsync"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// wantDistrust demands that err is distrust of commit for a reason, and that it
// says something.
func wantDistrust(t *testing.T, err error, commit gitsync.Hash, reason, says string) {
	t.Helper()
	var u *gitsync.UntrustedError
	if !errors.As(err, &u) {
		t.Errorf("error %v, want distrust: %s", err, reason)
		return
	}
	if u.Commit != commit || u.Reason != reason || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), string(commit.Short())) {
		t.Errorf("%s of %s: %v\nwant %s of %s, and %q", u.Reason, u.Commit.Short(), err, reason, commit.Short(), says)
	}
}

func TestVerifyWalksTheFirstParents(t *testing.T) {
	o := newOrigin(t)
	olga, olgaPublic := keyPair(t)
	max, maxPublic := keyPair(t, "-t", "rsa", "-b", "3072")
	base := o.commit("before signatures were wanted", "a", "0")
	o.signWith("ssh", olga)
	first := o.commit("first", "a", "1")

	git(t, o.clone, "checkout", "-q", "-b", "side")
	o.unsigned()
	write(t, filepath.Join(o.clone, "b"), "by a stranger")
	git(t, o.clone, "add", "-A")
	git(t, o.clone, "commit", "-q", "-m", "unsigned, on the side")
	git(t, o.clone, "checkout", "-q", "main")
	o.signWith("ssh", max)
	git(t, o.clone, "merge", "-q", "--no-ff", "-m", "merge", "side")
	merge := o.commit("after the merge", "a", "2")

	o.unsigned()
	bare := o.commit("unsigned\n\nin the middle", "a", "3")
	o.signWith("ssh", olga)
	last := o.commit("last", "a", "4")

	r := open(t, o.bare)
	fetch(t, r)
	s := signers(t, "olga@example.com "+olgaPublic+"\n\"max@example.com,max@home\" namespaces=\"git\" "+maxPublic+"\n", "")
	now := time.Now()
	side := gitsync.Hash(git(t, o.clone, "rev-parse", "side"))
	for name, c := range map[string]struct {
		head, since gitsync.Hash
		signer      string
		untrusted   gitsync.Hash
	}{
		"a merge vouches for its side":    {merge, base, "max@example.com,max@home", ""},
		"since is the head":               {first, first, "olga@example.com", ""},
		"nothing is in force yet":         {last, "", "olga@example.com", ""},
		"only what is new":                {last, bare, "olga@example.com", ""},
		"unsigned in the middle":          {last, merge, "", bare},
		"the oldest is named":             {last, side, "", bare},
		"since is on the side":            {merge, side, "max@example.com,max@home", ""},
		"unsigned head":                   {bare, first, "", bare},
		"the head is older than since":    {first, last, "olga@example.com", ""},
		"and must be signed all the same": {base, last, "", base},
		"since is unknown":                {last, gitsync.Hash(strings.Repeat("1", 40)), "olga@example.com", ""},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := r.Verify(c.head, c.since, s, now)
			if c.untrusted != "" {
				wantDistrust(t, err, c.untrusted, "unsigned", "not signed (sign it: git commit -S")
			} else if err != nil || signer != c.signer {
				t.Errorf("signer %q, %v; want %q", signer, err, c.signer)
			}
		})
	}
	_, err := r.Verify(last, merge, s, now)
	if want := `"unsigned" by Olga Operator <olga@example.com>`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s in it", err, want)
	}
	if r.Damaged() {
		t.Error("distrust damages nothing")
	}
	if _, err := r.Verify(gitsync.Hash(strings.Repeat("1", 40)), "", s, now); err == nil || errors.As(err, new(*gitsync.UntrustedError)) || !r.Damaged() {
		t.Errorf("a head that is not there: %v, damaged %v", err, r.Damaged())
	}
}

func TestSignersRulesAreKept(t *testing.T) {
	o := newOrigin(t)
	key, public := keyPair(t)
	_, otherPublic := keyPair(t)
	fingerprint := strings.Fields(run(t, nil, "ssh-keygen", "-lf", key+".pub"))[1]
	o.signWith("ssh", key)
	head := o.commit("one", "a", "1")
	r := open(t, o.bare)
	fetch(t, r)
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ options, revoked, reason, says string }{
		"no options":                  {"", "", "", ""},
		"git among the namespaces":    {`namespaces="file,git"`, "", "", ""},
		"a pattern of namespaces":     {`NAMESPACES="g?t*"`, "", "", ""},
		"other namespaces":            {`namespaces="file"`, "", "wrong_namespace", "may not sign for git"},
		"all namespaces but git":      {`namespaces="*,!git"`, "", "wrong_namespace", "may not sign for git"},
		"valid at the second":         {`valid-after="20261125120000Z",valid-before="20261125120000Z"`, "", "", ""},
		"not yet valid":               {`valid-after="202611251201Z"`, "", "not_yet_valid", "valid from 2026-11-25T12:01:00Z"},
		"no more valid":               {`valid-before="20261125Z"`, "", "expired", "valid until 2026-11-25T00:00:00Z"},
		"revoked by the key":          {"", public + " lost laptop", "revoked", fingerprint},
		"revoked by the finger":       {"", "# lost\n\n" + fingerprint + "\n", "revoked", fingerprint},
		"revoked by finger and note":  {"", fingerprint + " olga, lost", "revoked", fingerprint},
		"another one revoked":         {"", otherPublic, "", ""},
		"revoked is worse than early": {`valid-after="20990101"`, public, "revoked", fingerprint},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := r.Verify(head, "", signers(t, "olga@example.com "+c.options+" "+public, c.revoked), at)
			if c.reason != "" {
				wantDistrust(t, err, head, c.reason, c.says)
			} else if err != nil || signer != "olga@example.com" {
				t.Errorf("signer %q, %v", signer, err)
			}
		})
	}
	_, err := r.Verify(head, "", signers(t, "max@example.com "+otherPublic, ""), at)
	wantDistrust(t, err, head, "unknown_key", fingerprint)
	twice := "old valid-before=\"20200101\" " + public + "\nnew " + public
	if signer, err := r.Verify(head, "", signers(t, twice, ""), at); err != nil || signer != "new" {
		t.Errorf("a key on two lines: %q, %v", signer, err)
	}
}

// What a hostile pusher can write into a commit that somebody else signed, or
// signed for something else.
func TestForgedCommitsAreRefused(t *testing.T) {
	o := newOrigin(t)
	o.commit("base", "a", "1", "b", "2")
	key, public := keyPair(t)
	stranger, _ := keyPair(t)
	payload := o.payload("mine")
	good := sshSign(t, key, "git", payload)
	crlf := []byte(strings.ReplaceAll(string(payload), "mine", "mine\r"))
	sig := func(text string) string { return header("gpgsig", text) }
	cases := map[string]struct {
		raw          []byte
		reason, says string
	}{
		"signed":                  {withHeaders(payload, sig(good)), "", ""},
		"signed CRLF":             {withHeaders(crlf, sig(sshSign(t, key, "git", crlf))), "", ""},
		"an encoding before":      {withHeaders(withHeaders(payload, "encoding UTF-8\n"), sig(sshSign(t, key, "git", withHeaders(payload, "encoding UTF-8\n")))), "", ""},
		"unsigned":                {payload, "unsigned", "not signed"},
		"message altered":         {withHeaders(o.payload("theirs"), sig(good)), "bad_signature", "not of this commit"},
		"CRLF made of it":         {withHeaders(crlf, sig(good)), "bad_signature", "not of this commit"},
		"header added":            {withHeaders(payload, "encoding UTF-8\n", sig(good)), "bad_signature", "not of this commit"},
		"author altered":          {withHeaders([]byte(strings.Replace(string(payload), "author A U", "author B U", 1)), sig(good)), "bad_signature", "not of this commit"},
		"another's key":           {withHeaders(payload, sig(sshSign(t, stranger, "git", payload))), "unknown_key", "SHA256:"},
		"signed as a file":        {withHeaders(payload, sig(sshSign(t, key, "file", payload))), "bad_signature", `made for "file", not for git`},
		"two signatures":          {withHeaders(payload, sig(good), sig(good)), "malformed", "two headers gpgsig"},
		"of a SHA-256 repository": {withHeaders(payload, header("gpgsig-sha256", good)), "unsigned", "not signed"},
		"garbage":                 {withHeaders(payload, sig("garbage")), "bad_signature", "neither SSH's nor OpenPGP's"},
		"garbage in SSH's armor":  {withHeaders(payload, sig("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----")), "bad_signature", "cannot be read"},
		"garbage in PGP's armor":  {withHeaders(payload, sig("-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----")), "bad_signature", "cannot be read"},
		"cut short":               {withHeaders(payload, sig(good[:len(good)/2])), "bad_signature", "cannot be read"},
		"two trees":               {withHeaders(payload, "tree "+strings.Repeat("1", 40)+"\n", sig(good)), "malformed", "two headers tree"},
		"late parent":             {withHeaders(payload, "parent "+string(o.head("main"))+"\n", sig(good)), "malformed", "its headers are not tree, parent, parent, author"},
		"NUL in the header":       {withHeaders(payload, "note a\x00b\n", sig(good)), "malformed", "a NUL in it"},
		"a word as a header":      {withHeaders(payload, "note\n", sig(good)), "malformed", "without a value"},
	}
	s := signers(t, "olga@example.com "+public, "")
	base := o.head("main")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			git(t, o.bare, "update-ref", "refs/heads/main", string(base))
			head := o.put(c.raw)
			r := open(t, o.bare)
			fetch(t, r)
			signer, err := r.Verify(head, base, s, time.Now())
			if c.reason != "" {
				wantDistrust(t, err, head, c.reason, c.says)
			} else if err != nil || signer != "olga@example.com" {
				t.Errorf("signer %q, %v", signer, err)
			}
		})
	}
}

// OpenPGP, with a key of the library that verifies: no gpg is needed.
func TestOpenPGP(t *testing.T) {
	o := newOrigin(t)
	o.commit("base", "a", "1")
	base := o.head("main")
	payload := o.payload("mine")
	now := time.Now()
	ago := func(d time.Duration) *packet.Config {
		return &packet.Config{Time: func() time.Time { return now.Add(-d) }}
	}
	olga := newPGPKey(t, ago(time.Hour))
	short := ago(48 * time.Hour)
	short.KeyLifetimeSecs = 24 * 3600
	expired := newPGPKey(t, short)
	gone := newPGPKey(t, ago(time.Hour))
	lost := gone.sign(t, payload, ago(30*time.Minute))
	if err := gone.RevokeKey(packet.KeyCompromised, "lost", ago(0)); err != nil {
		t.Fatal(err)
	}
	stranger := newPGPKey(t, ago(time.Hour))
	name := "Olga Operator <olga@example.com> "
	signed := olga.sign(t, payload, ago(0))
	allowed := "# OpenPGP\n" + olga.public(t) + "\n" + expired.public(t) + gone.public(t)
	for name, c := range map[string]struct {
		signature, revoked   string
		signer, reason, says string
	}{
		"signed":            {signed, "", name + olga.fingerprint(), "", ""},
		"clock ahead":       {olga.sign(t, payload, ago(-5*time.Minute)), "", name + olga.fingerprint(), "", ""},
		"from the future":   {olga.sign(t, payload, ago(-time.Hour)), "", "", "expired", "not valid at"},
		"another content":   {olga.sign(t, []byte("other"), ago(0)), "", "", "bad_signature", "not of this commit"},
		"unknown key":       {stranger.sign(t, payload, ago(0)), "", "", "unknown_key", stranger.fingerprint()},
		"expired key":       {expired.sign(t, payload, ago(36*time.Hour)), "", "", "expired", expired.fingerprint()},
		"revoked key":       {lost, "", "", "revoked", gone.fingerprint()},
		"in the revoked":    {signed, spaced(olga.fingerprint()), "", "revoked", olga.fingerprint()},
		"block in revoked":  {signed, olga.public(t), "", "revoked", olga.fingerprint()},
		"other one revoked": {signed, strings.ToLower(stranger.fingerprint()), name + olga.fingerprint(), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			git(t, o.bare, "update-ref", "refs/heads/main", string(base))
			head := o.put(withHeaders(payload, header("gpgsig", c.signature)))
			r := open(t, o.bare)
			fetch(t, r)
			signer, err := r.Verify(head, base, signers(t, allowed, c.revoked), now)
			if c.reason != "" {
				wantDistrust(t, err, head, c.reason, c.says)
			} else if err != nil || signer != c.signer {
				t.Errorf("signer %q, %v; want %q", signer, err, c.signer)
			}
		})
	}
}

// spaced is a fingerprint as gpg prints it.
func spaced(fingerprint string) (text string) {
	for i := 0; i < len(fingerprint); i += 4 {
		text += fingerprint[i:i+4] + " "
	}
	return text
}

// Real gpg signs, with git, and a weak hash of it is refused; where it is
// installed, as .ci/run sees to. TestOpenPGP needs none.
func TestGnuPG(t *testing.T) {
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Log("gpg is not installed")
		return
	}
	home := t.TempDir()
	if len(home) > 70 { // gpg-agent's socket lies there
		home = filepath.Join(os.TempDir(), fmt.Sprint("gpg", os.Getpid()))
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(home)
	}
	t.Setenv("GNUPGHOME", home)
	defer run(t, nil, "gpgconf", "--kill", "all")
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Olga Operator <olga@example.com>", "rsa3072", "sign", "never")
	public := run(t, nil, "gpg", "--armor", "--export", "olga@example.com")
	o := newOrigin(t)
	base := o.commit("base", "a", "0")
	o.signWith("openpgp", "olga@example.com")
	head := o.commit("signed", "a", "1")
	r := open(t, o.bare)
	fetch(t, r)
	s := signers(t, public, "")
	signer, err := r.Verify(head, base, s, time.Now())
	if err != nil || !strings.HasPrefix(signer, "Olga Operator <olga@example.com> ") {
		t.Errorf("signer %q, %v", signer, err)
	}
	weak := o.payload("weak")
	signature := run(t, weak, "gpg", "--batch", "--quiet", "--armor", "--detach-sign", "--digest-algo", "SHA1", "-u", "olga@example.com")
	head = o.put(withHeaders(weak, header("gpgsig", signature)))
	fetch(t, r)
	_, err = r.Verify(head, base, s, time.Now())
	wantDistrust(t, err, head, "bad_signature", "weak")
}

func TestDescends(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("one", "a", "1")
	git(t, o.clone, "checkout", "-q", "-b", "side")
	write(t, filepath.Join(o.clone, "b"), "1")
	git(t, o.clone, "add", "-A")
	git(t, o.clone, "commit", "-q", "-m", "side")
	side := gitsync.Hash(git(t, o.clone, "rev-parse", "HEAD"))
	git(t, o.clone, "checkout", "-q", "main")
	git(t, o.clone, "merge", "-q", "--no-ff", "-m", "merge", "side")
	last := o.commit("two", "a", "2")
	r := open(t, o.bare)
	fetch(t, r)
	for _, c := range []struct {
		commit, ancestor gitsync.Hash
		want             bool
	}{
		{last, first, true}, {last, side, true}, {last, last, true}, {first, last, false}, {side, last, false},
		{last, gitsync.Hash(strings.Repeat("1", 40)), false},
	} {
		if got, err := r.Descends(c.commit, c.ancestor); err != nil || got != c.want {
			t.Errorf("%s descends from %s: %v, %v", c.commit.Short(), c.ancestor.Short(), got, err)
		}
	}
	if _, err := r.Descends(gitsync.Hash(strings.Repeat("1", 40)), first); err == nil {
		t.Error("no error for a commit that is not there")
	}
}

func TestPublishSigns(t *testing.T) {
	o := newOrigin(t)
	base := o.commit("one", "a", "1")
	for name, args := range map[string][]string{"ed25519": nil, "rsa": {"-t", "rsa", "-b", "3072"}, "ecdsa": {"-t", "ecdsa"}} {
		t.Run(name, func(t *testing.T) {
			key, public := keyPair(t, args...)
			r := open(t, o.bare, func(opts *gitsync.Options) { opts.SigningKeyFile = key })
			commit, err := r.Publish(t.Context(), adding("by-"+name, "2"))
			if err != nil {
				t.Fatal(err)
			}
			list := "hub " + public + "\n"
			signer, err := r.Verify(commit, "", signers(t, list, ""), time.Now())
			if err != nil || signer != "hub" {
				t.Errorf("signer %q, %v", signer, err)
			}
			file := filepath.Join(t.TempDir(), "allowed")
			write(t, file, list)
			git(t, o.bare, "-c", "gpg.ssh.allowedSignersFile="+file, "verify-commit", string(commit))
		})
	}
	if git(t, o.bare, "merge-base", string(base), "main") != string(base) {
		t.Error("the base is no ancestor")
	}
}

func TestSigningKeyIsChecked(t *testing.T) {
	o := newOrigin(t)
	key, public := keyPair(t)
	locked := filepath.Join(t.TempDir(), "locked")
	run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked)
	wide, _ := keyPair(t)
	if err := os.Chmod(wide, 0o640); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		locked: "has a passphrase", wide: "chmod 600", key + ".pub": "no private SSH key", key + "x": "no such file",
	} {
		if file == key+".pub" {
			if err := os.Chmod(file, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := gitsync.Open(gitsync.Options{URL: o.bare, Dir: t.TempDir(), SigningKeyFile: file})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "fleet.signing_key_file") {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	k, err := gitsync.ReadSigningKey(key)
	if err != nil || k.Public() != public || !strings.Contains(run(t, nil, "ssh-keygen", "-lf", key+".pub"), k.Fingerprint()) {
		t.Fatalf("%q %q, %v", k.Public(), k.Fingerprint(), err)
	}
	now := time.Now()
	if err := signers(t, "hub "+public, "").Allows(k, now); err != nil {
		t.Error(err)
	}
	_, other := keyPair(t)
	for _, s := range []*gitsync.Signers{signers(t, "olga "+other, ""), signers(t, `hub valid-before="20200101" `+public, ""), signers(t, "hub "+public, public)} {
		if err := s.Allows(k, now); err == nil || !strings.Contains(err.Error(), "hub "+public) {
			t.Errorf("error %v", err)
		}
	}
}
